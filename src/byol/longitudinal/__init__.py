"""Change over time: how well a direction of the features follows when a picture was made, on subjects that were not learnt from."""

from byol.longitudinal.evaluate import evaluate as evaluate
from byol.longitudinal.evaluate import projections as projections
from byol.longitudinal.measures import measured as measured
from byol.longitudinal.protocols import Progression as Progression
from byol.longitudinal.protocols import describe as describe
from byol.longitudinal.protocols import load as load
from byol.longitudinal.protocols import names as names
from byol.longitudinal.result import ProgressionResult as ProgressionResult
from byol.longitudinal.result import ProgressionScore as ProgressionScore
from byol.longitudinal.result import Track as Track

RAW = ""  # raw data is a subject like any other
