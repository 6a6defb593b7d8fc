"""Encoders f: images or sound -> features; ours, timm's by name, or any module wrapped."""

from byol.encoders.catalogue import describe as describe
from byol.encoders.catalogue import load as load
from byol.encoders.catalogue import names as names
from byol.encoders.catalogue import pretrained_name as pretrained_name
from byol.encoders.catalogue import pretrained_note as pretrained_note
from byol.encoders.catalogue import pretrained_statistics as pretrained_statistics
from byol.encoders.catalogue import random_twin as random_twin
from byol.encoders.encoder import Encoder as Encoder
from byol.encoders.encoder import wrap as wrap
from byol.encoders.feature_map import FeatureMap as FeatureMap
from byol.encoders.input import Input as Input
from byol.encoders.norms import set_by_data as set_by_data
from byol.encoders.norms import standardise_weights as standardise_weights
from byol.encoders.norms import waits_for_data as waits_for_data
from byol.encoders.norms import without_batch_norm as without_batch_norm
from byol.encoders.preprocess import evaluation_view as evaluation_view
from byol.encoders.preprocess import evaluation_views as evaluation_views
from byol.encoders.released import load_byol_a as load_byol_a
from byol.encoders.sound_input import AnyInput as AnyInput
from byol.encoders.sound_input import SoundInput as SoundInput
from byol.encoders.sound_input import input_from_json as input_from_json
from byol.encoders.store import load_weights as load_weights
from byol.encoders.store import save_weights as save_weights
from byol.encoders.waveforms import log_mel as log_mel
from byol.encoders.waveforms import resampled as resampled
from byol.encoders.waveforms import spectrogram as spectrogram
