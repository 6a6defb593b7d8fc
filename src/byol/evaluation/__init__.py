"""Evaluation: (encoder, labelled data) -> scores, each beside its protocol, its baselines and its interval."""

from byol.evaluation import splits as splits
from byol.evaluation.baselines import RAW as RAW
from byol.evaluation.baselines import pixels as pixels
from byol.evaluation.evaluate import evaluate as evaluate
from byol.evaluation.features import BATCH as BATCH
from byol.evaluation.features import Features as Features
from byol.evaluation.features import Precision as Precision
from byol.evaluation.features import features as features
from byol.evaluation.finetune import FineTune as FineTune
from byol.evaluation.knn import Knn as Knn
from byol.evaluation.knn import knn as knn
from byol.evaluation.linear import Linear as Linear
from byol.evaluation.linear_sgd import LinearSgd as LinearSgd
from byol.evaluation.probe import Prediction as Prediction
from byol.evaluation.probe import Probe as Probe
from byol.evaluation.probe import Task as Task
from byol.evaluation.protocols import describe as describe
from byol.evaluation.protocols import load as load
from byol.evaluation.protocols import names as names
from byol.evaluation.protocols import suggested as suggested
from byol.evaluation.result import Evaluation as Evaluation
from byol.evaluation.result import Score as Score
from byol.evaluation.semi import Semi as Semi
from byol.evaluation.sound import EvarLinear as EvarLinear
from byol.evaluation.sound import SoundLinear as SoundLinear
from byol.evaluation.transfer import Transfer as Transfer
