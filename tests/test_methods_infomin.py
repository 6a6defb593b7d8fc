import pytest
import torch
from equations import agree, build, cosine, layers, two_views, weights
from reference import encode
from torch import nn

from byol import encoders, methods, views
from byol.methods import infomin, moco
from byol.methods._draws import uniforms

InfoMin, MoCo, PIRL = methods.load("infomin"), methods.load("moco"), methods.load("pirl")
SMALL = {"hidden": 10, "dim": 6, "queue": 20}
HEAD = "L-RL"


def three_views(seed=1):
    return (*two_views(seed=seed), two_views(seed=seed + 50)[0])


def called(method, seen, seed=0):
    torch.manual_seed(seed)
    return method(seen)


def unit(rows):
    return torch.stack([row / (row * row).sum().sqrt() for row in rows])


def cross_entropy_written_out(q, k, queue):
    total = 0.0
    for i in range(len(q)):
        right = torch.exp(cosine(q[i], k[i]) / 0.15)
        total = total - torch.log(right / (right + sum(torch.exp((q[i] * other).sum() / 0.15) for other in queue)))
    return total / len(q)


def jigsaws(w, x, seed):
    """Of every image its patches cut by hand, in the drawn order, through both heads."""
    torch.manual_seed(seed)
    u = uniforms(len(x), 27, x.device)
    x = nn.functional.interpolate(x, (33, 33), mode="bilinear", align_corners=False)
    parts = []
    for i in range(len(x)):
        for k in range(9):
            top, left = (int(u[i, 2 * k + axis].item() * 4) + 11 * (k // 3, k % 3)[axis] for axis in (0, 1))
            parts.append(x[i, :, top : top + 8, left : left + 8])
    p = layers(encode(torch.stack(parts), w), w, "patch_projector", HEAD).view(len(x), 9, -1)
    shuffled = [torch.cat([p[i, k] for k in sorted(range(9), key=lambda k, i=i: u[i, 18 + k].item())]) for i in range(len(x))]
    return unit(torch.stack(shuffled) @ w["jigsaw.weight"].T + w["jigsaw.bias"])


def test_loss_and_gradient_are_both_cross_entropies_of_the_same_key_and_queue_written_out_to_1e_10():
    method = build(InfoMin, **SMALL, patch_weight=0.3)
    w, (v, u, whole), queue = weights(method), three_views(), method.queue.clone()
    k = unit(layers(encode(u, w, "target_encoder"), w, "target_projector", HEAD)).detach()
    q = unit(layers(encode(v, w), w, "projector", HEAD))
    expected = 0.7 * cross_entropy_written_out(q, k, queue) + 0.3 * cross_entropy_written_out(jigsaws(w, whole, 0), k, queue)
    agree(method, called(method, (v, u, whole)).loss, w, expected, bound=1e-9)


def test_symmetric_the_jigsaw_has_to_find_the_key_of_the_second_view_beside_both_directions():
    method = build(InfoMin, **SMALL, patch_weight=0.3, symmetric=True)
    w, (v, u, whole), queue = weights(method), three_views(), method.queue.clone()
    q, k = ([unit(layers(encode(x, w, f"{of}encoder"), w, f"{of}projector", HEAD)) for x in (v, u)] for of in ("", "target_"))
    k = [key.detach() for key in k]
    both = (cross_entropy_written_out(q[0], k[1], queue) + cross_entropy_written_out(q[1], k[0], queue)) / 2
    expected = 0.7 * both + 0.3 * cross_entropy_written_out(jigsaws(w, whole, 0), k[1], queue)
    agree(method, called(method, (v, u, whole)).loss, w, expected, bound=1e-9)


def test_without_the_jigsaw_it_is_moco_v2_exactly_over_several_updates():
    ours, theirs = build(InfoMin, **SMALL, patch_weight=0.0), build(MoCo, **SMALL, temperature=0.15)
    assert methods.views_of(InfoMin, ours.config) == methods.views_of(MoCo)
    theirs.load_state_dict(ours.state_dict())
    for method in (ours, theirs):
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
        for step in range(3):
            optimizer.zero_grad()
            called(method, two_views(seed=step), step).loss.backward()
            optimizer.step()
            method.after_step(0.0)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_the_queue_takes_the_keys_of_the_second_view_once_in_the_order_of_the_batch_over_its_end():
    method = build(InfoMin, **SMALL)
    expected, w = method.queue.clone(), weights(method)
    for step in range(3):  # 24 keys into 20 places
        seen = three_views(seed=step)
        called(method, seen, step)
        keys = unit(layers(encode(seen[1], w, "target_encoder"), w, "target_projector", HEAD)).detach()
        for i, key in enumerate(keys):
            expected[(8 * step + i) % 20] = key
        torch.testing.assert_close(method.queue, expected, rtol=0, atol=1e-12)
        assert method.pointer.item() == 8 * (step + 1) % 20


def test_the_jigsaw_teaches_the_network_of_the_queries_and_the_keys_get_no_gradient():
    method = build(InfoMin, **SMALL, patch_weight=1.0)
    v, u, whole = (x.requires_grad_() for x in three_views())
    called(method, (v, u, whole)).loss.backward()
    assert whole.grad.abs().max() > 0
    assert u.grad is None
    assert v.grad.abs().max() == 0
    assert all(p.grad.abs().max() > 0 for p in method.encoder.parameters())
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("target_"))
    assert {id(p) for part in (method.patch_projector, method.jigsaw) for p in part.parameters()} <= {
        id(p) for group in method.param_groups() for p in group["params"]
    }


def test_queries_and_patches_pass_apart_each_with_statistics_of_its_own():
    method, sizes = build(InfoMin, **SMALL), []
    method.encoder.register_forward_hook(lambda module, args, out: sizes.append(tuple(args[0].shape)))
    called(method, three_views())
    assert sizes == [(8, 2, 9, 9), (72, 2, 8, 8)]
    assert method.encoder.norm.num_batches_tracked.item() == 2


def test_the_heads_have_no_normalisation_and_the_defaults_are_the_released_ones():
    method = InfoMin(build(MoCo, **SMALL).encoder, InfoMin.Config(queue=8))
    for head in (method.projector, method.patch_projector):
        assert [p.out_features for p in head if isinstance(p, nn.Linear)] == [2048, 128]
    assert (method.jigsaw.in_features, method.jigsaw.out_features) == (1152, 128)
    assert not [m for part in (method.patch_projector, method.jigsaw) for m in part.modules() if isinstance(m, nn.BatchNorm1d)]
    assert {k: v for k, v in vars(InfoMin.Config()).items() if v != vars(MoCo.Config()).get(k)} == {
        "temperature": 0.15, "patch_weight": 0.5, "cell": 0, "patch": 0,
    }  # fmt: skip


def test_views_of_the_recipe_without_operations_and_with_mocos_colours_are_mocos():
    ours, theirs = infomin.RECIPES["infomin-imagenet-r50-200"]["values"], moco.RECIPES["moco-imagenet-r50-200"]["values"]
    fields = set(vars(views.load("torchvision", size=224).pipelines[0]))
    numbers, mocos = ({k: v for k, v in values.items() if k in fields} for values in (ours, theirs))
    assert (numbers["operations"], numbers["magnitude"], numbers["hue"], numbers["brightness"]) == (2, 10.0, 0.2, 0.8)
    as_moco = numbers | {"operations": 0, "magnitude": 0.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    inp = encoders.Input(channels=3, size=224, mean=(0.5,) * 3, std=(0.2,) * 3)
    raw = torch.randint(256, (2, 3, 230, 230), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = (views.load("torchvision", size=224, **n).memory(raw, torch.arange(2), 0, 0, inp) for n in (as_moco, mocos))
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_an_encoder_that_cannot_see_patches_and_impossible_options_are_refused_in_a_sentence():
    recording = encoders.Input(channels=7, size=1, mean=(0.0,) * 7, std=(1.0,) * 7)
    with pytest.raises(ValueError, match="infomin cuts images into patches, and a bin of a recording has one place"):
        InfoMin(encoders.load("mlp", input=recording), InfoMin.Config(queue=8))
    with pytest.raises(ValueError, match="patch_weight is 2; give a number from 0"):
        InfoMin.Config(patch_weight=2)
    with pytest.raises(ValueError, match="cell is -1; give 1 or more"):
        InfoMin.Config(cell=-1)
