"""Registration: how well the motion between two frames is found from features of their points, scored by known poses of the camera."""

from byol.registration.evaluate import evaluate as evaluate
from byol.registration.ply import write_ply as write_ply
from byol.registration.protocol import Registration as Registration
from byol.registration.protocol import describe as describe
from byol.registration.protocol import load as load
from byol.registration.protocol import names as names
from byol.registration.result import RegistrationResult as RegistrationResult
from byol.registration.result import RegistrationScore as RegistrationScore

RAW = "registration sets colour and no motion at all beside every encoder; give a run, an exported file or random:NAME"
