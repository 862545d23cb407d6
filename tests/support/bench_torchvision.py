#!/usr/bin/env python3
"""Time the reference's own augmentation (torchvision on PIL) on one core, for tests/support/bench_peer.sh.

The reference (github: facebookresearch/dinov2) is imported unchanged from a checkout; nothing of it is kept
here. Every repetition goes through all pictures, as `dinobatch bench --what augment` does. Prints one JSON
object on its last line: images per second of decoding, of the crops, and of both together.
"""
import argparse, io, json, os, statistics, sys, time, types

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--reference", required=True)
p.add_argument("--pictures", required=True, help="a folder of them")
p.add_argument("--seconds", type=float, default=3.0, help="of each measurement, two repetitions at least")
p.add_argument("--global-size", type=int, default=224)
p.add_argument("--local-size", type=int, default=98)
p.add_argument("--local-crops", type=int, default=8)
args = p.parse_args()

os.environ["OMP_NUM_THREADS"] = "1"
import torch, torchvision, PIL
from PIL import Image

torch.set_num_threads(1)
sys.path.insert(0, args.reference)
package = types.ModuleType("dinov2.data")  # its __init__ wants more than augmentation does
package.__path__ = [os.path.join(args.reference, "dinov2", "data")]
sys.modules["dinov2.data"] = package
from dinov2.data.augmentations import DataAugmentationDINO

augment = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), args.local_crops,
                               global_crops_size=args.global_size, local_crops_size=args.local_size)
encoded = [open(os.path.join(args.pictures, name), "rb").read() for name in sorted(os.listdir(args.pictures))]


def decode(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def rate(work, items):
    for item in items:
        work(item)
    times, start = [], time.perf_counter()
    while len(times) < 2 or time.perf_counter() - start < args.seconds:
        t = time.perf_counter()
        for item in items:
            work(item)
        times.append(time.perf_counter() - t)
    return len(items) / statistics.median(times)


pictures = [decode(data) for data in encoded]
print(json.dumps({
    "pictures": len(encoded),
    "decode_images_per_s": rate(decode, encoded),
    "crops_images_per_s": rate(augment, pictures),
    "decode_and_crops_images_per_s": rate(lambda data: augment(decode(data)), encoded),
    "torchvision": torchvision.__version__, "pillow": PIL.__version__,
}))
