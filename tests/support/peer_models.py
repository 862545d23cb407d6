"""Our convert beside unmodified timm and transformers: tiny networks with random weights.

    peer_models.py golden FOLDER       writes tests/golden/peers: weights as these libraries name them, and features
    peer_models.py check DINOBATCH     weights from there to here and back, loaded with strict checking and, of
                                       transformers, by from_pretrained in all types; features at the native grid and
                                       at others, square or not (by the peer's own rule of resampling)

Not a test of `make test`, which has the golden files; says that it is skipped where a library is missing.
"""
import os
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
    import timm.models.vision_transformer as timm_vit
    import torch
    from PIL import Image
    from safetensors.torch import load_file, save_file
    from timm.layers import SwiGLUPacked
    from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model
except ImportError as missing:
    print(f"peer_models: skipped: {missing}")
    sys.exit(0)
try:
    from transformers import (Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification,
                              Dinov2WithRegistersModel)
except ImportError:
    Dinov2WithRegistersModel = None

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-4  # of the largest number


class Shape:
    def __init__(self, width, depth, heads, patch, grid, others=()):
        self.width, self.depth, self.heads, self.patch, self.grid, self.others = width, depth, heads, patch, grid, others


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            fan_in = value[0].numel() if value.ndim > 1 else 4  # tokens count as one row
            scale = 2 / max(fan_in, 48) ** 0.5 if value.ndim > 1 else 0.5
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
            if "norm" in name and name.endswith("weight"):
                value.add_(1.0)
            if name.endswith(("gamma", "lambda1")):
                value.mul_(0.5)
    return model.eval()


def huggingface(shape, registers, swiglu):
    settings = dict(hidden_size=shape.width, num_hidden_layers=shape.depth, num_attention_heads=shape.heads,
                    image_size=shape.patch * shape.grid, patch_size=shape.patch, use_swiglu_ffn=swiglu, mlp_ratio=4)
    if registers:
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **settings))
    return Dinov2Model(Dinov2Config(**settings))


def timm_model(shape, registers, swiglu):
    settings = dict(img_size=shape.patch * shape.grid, patch_size=shape.patch, embed_dim=shape.width, depth=shape.depth,
                    num_heads=shape.heads, num_classes=0, init_values=1e-5, reg_tokens=registers,
                    no_embed_class=registers > 0, dynamic_img_size=True)
    if swiglu:  # as timm's own vit_giant_patch14_dinov2
        hidden = (int(shape.width * 4 * 2 / 3) + 7) // 8 * 8
        settings.update(mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=2 * hidden / shape.width)
    return timm_vit.VisionTransformer(**settings)


def features(model, images, registers):
    """Class tokens and patch tokens behind the final norm."""
    with torch.no_grad():
        out = model(pixel_values=images).last_hidden_state if hasattr(model, "encoder") else model.forward_features(images)
    return out[:, 0], out[:, 1 + registers:]


def plain(model):
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def difference(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def cases():
    for name, make in (("huggingface", huggingface), ("timm", timm_model)):
        for registers in (0, 4):
            for swiglu in (False, True):
                if name == "huggingface" and registers and not Dinov2WithRegistersModel:
                    print(f"peer_models: skipped: {name} with registers: transformers is too old")
                    continue
                yield f"{name}{'_registers' if registers else ''}{'_swiglu' if swiglu else '_mlp'}", make, registers, swiglu


def golden(folder):
    os.makedirs(folder, exist_ok=True)
    shape = Shape(width=16, depth=2, heads=2, patch=4, grid=3)
    kinds = {"huggingface_mlp": torch.float16, "huggingface_registers_swiglu": torch.bfloat16,
             "timm_registers_mlp": torch.float32, "timm_swiglu": torch.float16}
    for number, (name, make, registers, swiglu) in enumerate(cases()):
        if name not in kinds:
            continue
        model = randomise(make(shape, registers, swiglu), number)
        weights = {key: value.to(kinds[name]) for key, value in plain(model).items()}
        model.load_state_dict({key: value.float() for key, value in weights.items()})
        save_file(weights, f"{folder}/{name}.safetensors", metadata={"format": "pt"})
        model, seen = model.double(), {}
        for which, size, count in (("", (12, 12), 2), ("_wide", (16, 24), 1)):  # native, and resampled by the peer
            images = torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(100 + number))
            cls, patches = features(model, images.double(), registers)
            seen.update({f"images{which}": images, f"class_token{which}": cls.float().contiguous(),
                         f"patch_tokens{which}": patches.float().contiguous()})
        save_file(seen, f"{folder}/{name}_features.safetensors")


def run(binary, *words):
    done = subprocess.run([binary, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"peer_models: {' '.join(words)}: exit {done.returncode}: {done.stderr}")


def our_features(binary, folder, checkpoint, size):
    """Class tokens and patch tokens of pictures of one size, and whether pictures of their own sizes give the same."""
    words = ["extract", "--model", checkpoint, "--data", f"folder:{folder}/pictures{size}", "--layer", "class_token+patch",
             "--output-dir", f"{folder}/features.h5", "train.num_workers=1", "compute.device=cpu"]
    run(binary, *words, "--size", f"{size[0]}x{size[1]}")
    with h5py.File(f"{folder}/features.h5") as file:
        cls, patches = file["features"][:], file["patch_features"][:]
    run(binary, *words, "--size", "native")
    with h5py.File(f"{folder}/features.h5") as file:
        same = np.array_equal(file["patch_rows"][:], patches.reshape(-1, patches.shape[-1]))
    return cls, patches.reshape(len(patches), -1, patches.shape[-1]), same


def draw(folder, size, count=2):
    os.makedirs(f"{folder}/pictures{size}", exist_ok=True)
    drawn = np.random.default_rng(size[0] + size[1]).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for i in range(count):
        Image.fromarray(drawn[i]).save(f"{folder}/pictures{size}/{i}.png")
    normed = (drawn / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.tensor(normed.transpose(0, 3, 1, 2), dtype=torch.float32)


def check_case(binary, folder, case, shape):
    name, make, registers, swiglu = case
    native = shape.patch * shape.grid
    model = randomise(make(shape, registers, swiglu), 1)
    save_file(plain(model), f"{folder}/in.safetensors")
    antialias = make is timm_model or registers > 0  # transformers' Dinov2Model alone resamples without
    run(binary, "convert", f"{folder}/in.safetensors", f"{folder}/model.h5", "--heads", str(shape.heads),
        f"student.interpolate_antialias={str(antialias).lower()}", "student.interpolate_offset=0")
    run(binary, "validate", f"{folder}/model.h5")
    line = []
    for size in ((native, native), *shape.others):
        theirs = features(model, draw(folder, size), registers)
        *ours, same = our_features(binary, folder, f"{folder}/model.h5", size)
        for layer, mine, other in zip(("class token", "patch tokens"), ours, theirs):
            got = difference(mine, other.numpy())
            line.append(f"{size[0]}x{size[1]} {layer} {got:.1e}")
            if not got <= TOLERANCE:
                sys.exit(f"peer_models: {name}: {size} pixels, {layer}: {got:.2e} apart")
        if not same:
            sys.exit(f"peer_models: {name}: {size} pixels are not the same as each picture's own size")
    images = draw(folder, (native, native))
    before = features(model, images, registers)
    for other_name, other_make in (("huggingface", huggingface), ("timm", timm_model)):
        if other_make is huggingface and registers and not Dinov2WithRegistersModel:
            continue
        run(binary, "convert", f"{folder}/model.h5", f"{folder}/out.safetensors", "--names", other_name)
        weights = load_file(f"{folder}/out.safetensors")
        other = other_make(shape, registers, swiglu)
        other.load_state_dict(weights, strict=True)
        after = features(other.eval(), images, registers)
        got = max(difference(a.numpy(), b.numpy()) for a, b in zip(after, before))
        line.append(f"to {other_name} {got:.1e}")
        if not got <= TOLERANCE:
            sys.exit(f"peer_models: {name} to {other_name}: {got:.2e} apart")
        if other_make is make and any(not torch.equal(weights[key], value) for key, value in plain(model).items()):
            sys.exit(f"peer_models: {name}: does not come back as it was")
    if make is huggingface:
        check_pretrained(binary, folder, name, model, registers, images, before)
        line.append("from_pretrained")
    print(f"{name} {shape.width}x{shape.depth}/{shape.patch}: " + ", ".join(line), flush=True)


def check_pretrained(binary, folder, name, model, registers, images, before):
    """What from_pretrained makes of a folder of ours, in all types; and a classification model in parts to here and back."""
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.float16, 1e-2), (torch.bfloat16, 1e-1)):
        run(binary, "convert", f"{folder}/model.h5", f"{folder}/hub/model.safetensors", "--names", "huggingface", "--dtype",
            str(dtype).split(".")[1])
        loaded, report = type(model).from_pretrained(f"{folder}/hub", torch_dtype="auto", output_loading_info=True)
        if any(report.values()) or loaded.dtype != dtype or loaded.config.num_attention_heads != model.config.num_attention_heads:
            sys.exit(f"peer_models: {name}: from_pretrained: {loaded.dtype} {report}")
        after = features(loaded.float().eval(), images, registers)
        got = max(difference(a.numpy(), b.numpy()) for a, b in zip(after, before))
        if not got <= tolerance:
            sys.exit(f"peer_models: {name}: from_pretrained, {dtype}: {got:.2e} apart")
    classifier = (Dinov2WithRegistersForImageClassification if registers else Dinov2ForImageClassification)(model.config)
    classifier.base_model.load_state_dict(model.state_dict())
    classifier.save_pretrained(f"{folder}/classifier", max_shard_size="40KB" if model.config.hidden_size < 100 else "20MB")
    if not os.path.exists(f"{folder}/classifier/model.safetensors.index.json"):
        sys.exit("peer_models: the classification model was not written in parts")
    run(binary, "convert", f"{folder}/classifier", f"{folder}/again.h5", "--heads", str(model.config.num_attention_heads))
    run(binary, "convert", f"{folder}/again.h5", f"{folder}/again.safetensors", "--names", "huggingface")
    again = load_file(f"{folder}/again.safetensors")
    if any(not torch.equal(again[key], value) for key, value in plain(model).items()):
        sys.exit(f"peer_models: {name}: a classification model in parts does not come back as it was")


def check(binary):
    print(f"torch {torch.__version__}, timm {timm_vit.__name__.split('.')[0]} {sys.modules['timm'].__version__}, "
          f"transformers {sys.modules['transformers'].__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            check_case(binary, folder, case, Shape(width=48, depth=3, heads=3, patch=14, grid=4,
                                                   others=((98, 98), (42, 42), (42, 98))))
        small = Shape(width=384, depth=12, heads=6, patch=14, grid=37, others=((224, 224), (224, 308)))  # ViT-S/14
        for case in cases():
            if not case[3]:
                check_case(binary, folder, case, small)
    print("peer_models: all equal")


if __name__ == "__main__":
    {"golden": golden, "check": check}[sys.argv[1]](sys.argv[2])
