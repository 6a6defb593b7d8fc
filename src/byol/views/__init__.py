"""Views: what the networks see of a sample. Named plans of random changes, batched, random for every sample."""

from byol.logmel import FrontEnd as FrontEnd
from byol.logmel import LogMel as LogMel
from byol.views import visits as visits
from byol.views.named import has_numba as has_numba
from byol.views.named import load as load
from byol.views.named import names as names
from byol.views.partners import Partners as Partners
from byol.views.pipeline import Pipeline as Pipeline
from byol.views.plan import ViewPlan as ViewPlan
from byol.views.protocol import HostPlan as HostPlan
from byol.views.protocol import MemoryPlan as MemoryPlan
from byol.views.protocol import Plan as Plan
from byol.views.sound_state import SoundState as SoundState
from byol.views.sounds import SoundViews as SoundViews
from byol.views.visits import VisitViews as VisitViews
