import pytest
import torch
from equations import agree, build, cosine, layers, lightly, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn

from byol import checkpoint, methods, optim

MoCo = methods.load("moco")
SMALL = {"hidden": 10, "dim": 6, "queue": 20}
HEAD = "L-RL"


def keys_of(w, view, prefix="target_"):
    z = layers(encode(view, w, f"{prefix}encoder"), w, f"{prefix}projector", HEAD)
    return torch.stack([row / (row * row).sum().sqrt() for row in z])


def written_out(w, views, queue, temperature, *, symmetric):
    """-log( exp(q k / T) / (exp(q k / T) + sum over the queue of exp(q k' / T)) ), one query after the other."""
    total, count = 0.0, 0
    for a, b in (views, views[::-1]) if symmetric else (views,):
        q = layers(encode(a, w), w, "projector", HEAD)
        k = keys_of(w, b).detach()
        for i in range(len(q)):
            right = torch.exp(cosine(q[i], k[i]) / temperature)
            unit = q[i] / (q[i] * q[i]).sum().sqrt()  # keys in the queue are of length 1, as far as float32 has it
            wrong = sum(torch.exp((unit * other).sum() / temperature) for other in queue)
            total, count = total - torch.log(right / (right + wrong)), count + 1
    return total / count


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_and_gradient_are_info_nce_written_out_to_1e_10(symmetric):
    method = build(MoCo, **SMALL, symmetric=symmetric)
    w, views, queue = weights(method), two_views(), method.queue.clone()
    agree(method, method(views).loss, w, written_out(w, views, queue, 0.2, symmetric=symmetric))


def test_the_queue_begins_random_on_the_sphere_and_takes_keys_in_the_order_of_the_batch_over_its_end():
    method = build(MoCo, **SMALL)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(20, dtype=torch.float64))
    expected, w = method.queue.clone(), weights(method)
    for step in range(3):  # 24 keys into 20 places
        views = two_views(seed=step)
        method(views)
        for i, key in enumerate(keys_of(w, views[1]).detach()):
            expected[(8 * step + i) % 20] = key
        torch.testing.assert_close(method.queue, expected, rtol=0, atol=1e-12)
        assert method.pointer.item() == 8 * (step + 1) % 20


def test_of_more_keys_than_the_queue_holds_the_last_stay():
    method = build(MoCo, **SMALL | {"queue": 3})
    w, views = weights(method), two_views()
    method(views)
    keys = keys_of(w, views[1]).detach()
    assert method.pointer.item() == 8 % 3
    for i in (5, 6, 7):
        torch.testing.assert_close(method.queue[i % 3], keys[i], rtol=0, atol=1e-12)


def test_the_network_of_the_keys_begins_as_a_copy_and_moves_by_a_constant_momentum():
    method = build(MoCo, **SMALL, tau=0.9)
    pairs = [(p, dict(method.named_parameters())[f"target_{n}"]) for n, p in method.named_parameters() if not n.startswith("target_")]
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)
    with torch.no_grad():
        for p, _ in pairs:
            p.add_(torch.randn_like(p))
    for progress in (0.0, 0.9):
        expected = [0.9 * k + 0.1 * q for q, k in pairs]
        method.after_step(progress)
        for (_, k), e in zip(pairs, expected, strict=True):
            torch.testing.assert_close(k, e, rtol=0, atol=1e-14)


def test_an_asymmetric_step_takes_no_gradient_through_the_second_view():
    method = build(MoCo, **SMALL)
    v, w = (x.requires_grad_() for x in two_views())
    method((v, w)).loss.backward()
    assert v.grad.abs().max() > 0
    assert w.grad is None
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("target_"))


def test_shuffled_keys_come_back_in_order_and_each_part_has_its_own_statistics():
    method = build(MoCo, **SMALL, shuffle=4)
    _, view = two_views()
    torch.manual_seed(5)
    keys = method._keys(view)
    torch.manual_seed(5)
    order = torch.randperm(8)
    w = weights(method)
    for part in order.view(4, 2):
        torch.testing.assert_close(keys[part], keys_of(w, view[part]).detach(), rtol=0, atol=1e-12)
    assert method.target_encoder.norm.num_batches_tracked.item() == 4


def test_more_parts_than_pairs_of_images_are_refused_in_words():
    with pytest.raises(ValueError, match="8 images a pass are too few for it; give 4 or less"):
        build(MoCo, **SMALL, shuffle=5)(two_views())


def test_the_queue_and_its_pointer_are_in_the_checkpoint(tmp_path):
    method, again = build(MoCo, **SMALL), build(MoCo, **SMALL)
    method(two_views())
    make = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "trust_coefficient": 1e-3}
    checkpoint.save(tmp_path / "last.safetensors", step=1, method=method, optimizer=optim.make("sgd", method.param_groups(), **make))
    checkpoint.restore(tmp_path / "last.safetensors", method=again, optimizer=optim.make("sgd", again.param_groups(), **make))
    assert torch.equal(again.queue, method.queue)
    assert again.pointer.item() == 8


def test_the_head_has_no_normalisation():
    method = MoCo(TinyEncoder(), MoCo.Config(queue=8))
    linear = [p for p in method.projector if isinstance(p, nn.Linear)]
    assert [p.out_features for p in linear] == [2048, 128]
    assert all(p.bias is not None for p in linear)
    assert not [m for m in method.projector if isinstance(m, (nn.BatchNorm1d, nn.LayerNorm))]
    assert vars(MoCo.Config()) == {
        "hidden": 2048, "dim": 128, "queue": 65536, "temperature": 0.2, "tau": 0.999, "symmetric": False, "shuffle": 1,
    }  # fmt: skip


def test_loss_and_gradient_are_lightlys_with_its_memory_bank():
    criterion = lightly("loss").NTXentLoss(temperature=0.2, memory_bank_size=(20, 6)).double()
    method, views = build(MoCo, **SMALL), two_views()
    criterion.memory_bank.bank = method.queue.clone()
    q = method.projector(method.encoder(views[0]))
    with torch.no_grad():
        k = method.target_projector(method.target_encoder(views[1]))
    theirs, loss = criterion(q, k), method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    parameters = [p for p in method.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    torch.testing.assert_close(method.queue, criterion.memory_bank.bank)


def test_the_momentum_update_is_lightlys():
    update = lightly("models.utils").update_momentum
    ours, theirs = build(MoCo, **SMALL, tau=0.97), build(MoCo, **SMALL, tau=0.97)
    for method in (ours, theirs):
        torch.manual_seed(3)
        with torch.no_grad():
            for p in method.encoder.parameters():
                p.add_(torch.randn_like(p))
    ours.after_step(0.3)
    update(theirs.encoder, theirs.target_encoder, 0.97)
    for a, b in zip(ours.target_encoder.parameters(), theirs.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
