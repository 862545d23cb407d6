#!/usr/bin/env python3
"""Compare `dinobatch evaluate knn` and `evaluate logreg` with scikit-learn, and the linear probe with SGD in NumPy,
on the same features files.

With --golden prints the numbers that tests/unit/test_logistic_regression.c holds. Without scikit-learn it
says so and exits 0. Exits 1 where an objective differs by more than 1e-6 of it, or an accuracy by more than 0.2 points.
"""
import argparse, json, math, os, subprocess, sys, tempfile

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--train-features")
p.add_argument("--val-features")
p.add_argument("--c", type=float, nargs="+", default=[1e-3, 0.1, 10.0])
p.add_argument("--k", type=int, nargs="+", default=[1, 10, 20])
p.add_argument("--golden", action="store_true")
args = p.parse_args()

try:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
except ImportError as e:
    print(f"evaluate_peer: skipped, {e}")
    sys.exit(0)


def fit(x, y, c):
    model = LogisticRegression(C=c, tol=1e-11, max_iter=100000)
    return model.fit(x.astype(np.float64), y)


def objective(model, x, y, c):
    x = x.astype(np.float64)
    n = len(x)
    probabilities = np.log(model.predict_proba(x)[np.arange(n), np.searchsorted(model.classes_, y)])
    return -probabilities.mean() + (model.coef_**2).sum() / (2 * c * n)


def golden(n=60, d=5):
    """Rows that integer arithmetic gives, the same in C."""
    for classes in (2, 3):
        y = np.arange(n) % classes
        i, j = np.arange(n)[:, None], np.arange(d)[None, :]
        x = ((i * 7919 + j * 104729 + i * j * 31) % 1009) / 1009 - 0.5 + y[:, None] * (j % 3 - 1) * 0.25
        x = x.astype(np.float32)
        for c in (1e-3, 1.0, 1e3):
            model = fit(x, y, c)
            right = int((model.predict(x.astype(np.float64)) == y).sum())
            print(f"    {{{classes}, {c:g}, {objective(model, x, y, c):.15g}, {right}}},")


def run(what, *keys):
    words = [os.environ.get("DINOBATCH", "build/dinobatch"), "evaluate", what, "--json",
             "--train-features", args.train_features, "--val-features", args.val_features, *keys]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def ours(c):
    power = math.log10(c)
    return run("logreg", f"evaluation.logreg_c_log10=[{power!r},{power!r}]", "evaluation.logreg_c_count=1",
               "evaluation.logreg_max_iterations=100000")


def read(path):
    import h5py

    with h5py.File(path) as f:
        return f["features"][:].astype(np.float32), f["labels"][:]


def linear_probe(steps=800, batch=256):
    """The reference's SGD (momentum 0.9, cosine, no decay) from the program's own weights, on the same batches."""
    program = os.environ.get("MPI_CASE_BIN", "build/tests/mpi_case")
    with tempfile.NamedTemporaryFile() as weights:
        words = [program, "linear_peer", args.train_features, args.val_features, weights.name, str(steps)]
        printed = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode()
        mine = [tuple(map(float, line.split())) for line in printed.splitlines()]
        w = np.fromfile(weights.name, np.float32).reshape(len(mine), -1, x.shape[1])
    b = np.zeros(w.shape[:2], np.float32)
    vw, vb, bad = np.zeros_like(w), np.zeros_like(b), 0
    for step in range(steps):
        rows = (step * batch + np.arange(batch)) * 7919 % len(x)
        for k, (rate, _) in enumerate(mine):
            scores = x[rows] @ w[k].T + b[k]
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(batch), y[rows]] -= 1
            p /= batch
            vw[k] = 0.9 * vw[k] + p.T @ x[rows]
            vb[k] = 0.9 * vb[k] + p.sum(0)
            now = np.float32(rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
            w[k] -= now * vw[k]
            b[k] -= now * vb[k]
    for k, (rate, top1) in enumerate(mine):
        theirs = 100 * ((vx @ w[k].T + b[k]).argmax(1) == vy).mean()
        print(f"linear, learning rate {rate:g}: top-1 {top1:.3f} %, NumPy {theirs:.3f} %")
        bad += abs(top1 - theirs) > 0.2
    return bad


if args.golden:
    golden()
    sys.exit(0)
(x, y), (vx, vy) = read(args.train_features), read(args.val_features)
bad = 0
for k in args.k:
    weights = lambda distance: np.exp((1 - distance) / 0.07)
    model = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute").fit(x, y)
    top1 = 100 * model.score(vx, vy)
    mine = run("knn", f"evaluation.knn_k=[{k}]")[f"knn_top1_k{k}"]
    print(f"k = {k}: top-1 {mine:.3f} %, scikit-learn {top1:.3f} %")
    bad += abs(mine - top1) > 0.2
for c in args.c:
    model = fit(x, y, c)
    theirs = objective(model, x, y, c)
    top1 = 100 * (model.predict(vx.astype(np.float64)) == vy).mean()
    mine = ours(c)
    off = abs(mine["objective"] - theirs) / theirs
    print(f"C = {c:g}: objective {mine['objective']:.10g}, scikit-learn {theirs:.10g} ({off:.1e} of it); "
          f"top-1 {mine['logreg_top1']:.3f} %, scikit-learn {top1:.3f} %")
    bad += off > 1e-6 or abs(mine["logreg_top1"] - top1) > 0.2
bad += linear_probe()
sys.exit(1 if bad else 0)
