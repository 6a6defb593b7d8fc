"""Dense transfer: what an encoder's feature map is worth for segmentation, depth and detection, frozen and fine-tuned."""

from byol.dense.evaluate import evaluate as evaluate
from byol.dense.protocols import describe as describe
from byol.dense.protocols import load as load
from byol.dense.protocols import names as names
from byol.dense.result import DenseResult as DenseResult
from byol.dense.result import DenseScore as DenseScore

RAW = "has no feature map; give a run, an exported file, random:NAME or timm:NAME"
