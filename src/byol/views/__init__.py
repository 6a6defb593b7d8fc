"""Views: what the networks see of a sample. Named plans of random crops and colour changes, batched, random for every sample."""

from byol.views.logmel import FrontEnd as FrontEnd
from byol.views.logmel import LogMel as LogMel
from byol.views.named import has_numba as has_numba
from byol.views.named import load as load
from byol.views.named import names as names
from byol.views.pipeline import Pipeline as Pipeline
from byol.views.plan import ViewPlan as ViewPlan
