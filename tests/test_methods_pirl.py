import pytest
import test_training as single
import torch
from equations import agree, build, two_views, weights
from reference import encode
from test_methods_instdisc import INDEX, drawn, head, nce_written_out, sgd, unit
from torch.nn.functional import interpolate

from byol import encoders, methods
from byol.methods import _bank
from byol.methods._draws import uniforms
from byol.methods.pirl import cut

PIRL, InstDisc = methods.load("pirl"), methods.load("instdisc")
SMALL = {"dim": 5, "samples": 20, "negatives": 7}


def called(method, views, seed=0):
    torch.manual_seed(seed)
    return method(views, index=INDEX)


def jigsaws(w, x, seed, columns_first):
    """g of every image, patch by patch; `columns_first` draws what comes before."""
    torch.manual_seed(seed)
    columns_first()
    u = uniforms(len(x), 27, x.device)
    x = interpolate(x, (33, 33), mode="bilinear", align_corners=False)
    made = []
    for i in range(len(x)):
        patches = []
        for k in range(9):
            top, left = (int(u[i, 2 * k + axis].item() * 4) + 11 * (k // 3, k % 3)[axis] for axis in (0, 1))
            patches.append(x[i, :, top : top + 8, left : left + 8])
        made.append(torch.stack(patches))
    y = encode(torch.cat(made), w).view(len(x), 9, -1)
    p = y @ w["patch_projector.0.weight"].T + w["patch_projector.0.bias"]
    shuffled = [torch.cat([p[i, k] for k in sorted(range(9), key=lambda k, i=i: u[i, 18 + k].item())]) for i in range(len(x))]
    return [unit(row @ w["jigsaw.0.weight"].T + w["jigsaw.0.bias"]) for row in shuffled]


def test_loss_and_gradient_are_both_nces_written_out_to_1e_10():
    method = build(PIRL, **SMALL, patch_weight=0.3)
    w, (image, whole), rows = weights(method), two_views(), method.bank.rows.clone()
    columns = drawn(method.bank, INDEX, 0)
    of_images, of_patches = head(w, image), jigsaws(w, whole, 0, lambda: method.bank.columns(INDEX))

    def scores(made):
        return [[(v * rows[j]).sum() / 0.07 for j in columns[i]] for i, v in enumerate(made)]

    z = (20 * torch.stack([torch.exp(s) for row in scores(of_images) for s in row]).mean()).detach()  # of the images alone
    f, g = (sum(nce_written_out(row, z, 20) for row in scores(made)) / 8 for made in (of_images, of_patches))
    agree(method, called(method, (image, whole)).loss, w, 0.7 * f + 0.3 * g, bound=1e-9)


def test_without_weight_on_the_patches_it_is_instdisc_exactly():
    method, other = build(PIRL, **SMALL, patch_weight=0.0), build(InstDisc, **SMALL)
    other.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith(("patch", "jigsaw"))})
    views = two_views()
    torch.manual_seed(0)
    theirs = other(views[:1], index=INDEX).loss
    assert torch.equal(called(method, views).loss, theirs)


def test_rows_are_written_with_what_the_images_give_and_patches_do_not_matter():
    method, other = build(PIRL, **SMALL), build(PIRL, **SMALL)
    image, whole = two_views()
    for one, views in ((method, (image, whole)), (other, (image, whole.flip(0)))):
        called(one, views)
        one.after_step(0.0)
    assert torch.equal(method.bank.rows, other.bank.rows)
    v = head(weights(method), image)
    assert torch.equal(method.bank.rows[8], build(PIRL, **SMALL).bank.rows[8]), "not in the batch"
    expected = unit(build(PIRL, **SMALL).bank.rows[3] / 2 + v[0] / 2)
    torch.testing.assert_close(method.bank.rows[3], expected.detach(), rtol=0, atol=1e-12)


def test_images_and_patches_pass_apart_each_with_its_own_statistics():
    method = build(PIRL, **SMALL)
    sizes = []
    method.encoder.register_forward_hook(lambda module, args, out: sizes.append(tuple(args[0].shape)))
    called(method, two_views())
    assert sizes == [(8, 2, 9, 9), (72, 2, 8, 8)]
    assert method.encoder.norm.num_batches_tracked.item() == 2


def test_every_patch_lies_within_its_cell():
    places = torch.arange(33.0)
    x = torch.stack([places[:, None].expand(33, 33), places.expand(33, 33)]).expand(50, 2, 33, 33)  # each pixel says where it is
    u = torch.rand(50, 9, 2, generator=torch.Generator().manual_seed(0))
    u[0], u[1] = 0.0, 1 - 2**-24
    parts = cut(x, u, cell=11, patch=8)
    assert parts.shape == (50, 9, 2, 8, 8)
    for k in range(9):
        for axis, cell in enumerate((k // 3, k % 3)):
            seen = parts[:, k, axis]
            assert seen.min() == 11 * cell
            assert seen.max() == 11 * cell + 10
    assert (parts[:, :, 0, 1:] - parts[:, :, 0, :-1] == 1).all()


def test_sizes_of_cells_and_patches_are_those_published_in_proportion():
    c = PIRL.Config(samples=9)
    assert [c.sides(s) for s in (8, 32, 64, 96, 255)] == [(11, 8), (11, 8), (22, 17), (32, 24), (85, 64)]
    assert PIRL.Config(samples=9, cell=85, patch=64).sides(224) == (85, 64)
    with pytest.raises(ValueError, match="a patch of 12 px does not fit into a cell of 11 px"):
        PIRL.Config(samples=9, patch=12).sides(32)


def test_images_are_shuffled_each_in_an_order_of_its_own_alike_for_any_number_of_processes(monkeypatch):
    method = build(PIRL, **SMALL)
    _, whole = two_views()
    torch.manual_seed(3)
    u = uniforms(8, 27, whole.device)
    orders = u[:, 18:].argsort(1)
    assert len({tuple(o) for o in orders.tolist()}) == 8
    method.eval()  # statistics of a batch would be of another one
    every = method._of_patches(whole, u)
    monkeypatch.setattr(_bank.dist, "rank", lambda: 1)
    torch.manual_seed(3)
    part = uniforms(4, 27, whole.device)
    torch.testing.assert_close(method._of_patches(whole[4:], part), every[4:], rtol=0, atol=1e-12)


def test_two_orders_of_an_image_differ_and_are_nearer_than_other_images_after_training():
    torch.manual_seed(0)
    method = PIRL(single.Net(), PIRL.Config(samples=16, dim=8, negatives=0, temperature=0.2))
    optimizer, x = sgd(method), 2 * single.images(16) + torch.arange(-8, 8).view(16, 1, 1, 1)
    for step in range(30):
        optimizer.zero_grad()
        torch.manual_seed(step)
        method((x, x), index=torch.arange(16)).loss.backward()
        optimizer.step()
        method.after_step(step / 30)
    torch.manual_seed(99)
    with torch.no_grad():
        one, two = (torch.nn.functional.normalize(method._of_patches(x, uniforms(16, 27, x.device))) for _ in range(2))
    assert (one - two).abs().max() > 1e-3
    similar = one @ two.T
    assert similar.diagonal().mean() > similar[~torch.eye(16, dtype=torch.bool)].mean() + 0.1


def test_an_encoder_that_cannot_see_patches_is_refused_in_a_sentence():
    recording = encoders.Input(channels=7, size=1, mean=(0.0,) * 7, std=(1.0,) * 7)
    with pytest.raises(ValueError, match="pirl cuts images into patches, and a bin of a recording has one place"):
        PIRL(encoders.load("mlp", input=recording), PIRL.Config(samples=9))
    images = encoders.Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(ValueError, match=r"does not take a batch of shape \(2, 3, 8, 8\)"):
        PIRL(encoders.load("mlp", input=images), PIRL.Config(samples=9))


def test_a_hidden_layer_makes_both_heads_perceptrons():
    method = build(PIRL, **SMALL, hidden=12)
    assert [m.out_features for m in method.projector if isinstance(m, torch.nn.Linear)] == [12, 5]
    called(method, two_views()).loss.backward()
