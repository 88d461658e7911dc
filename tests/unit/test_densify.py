import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dg.core import optim_edit
from dg.core.densify import (
    AdaptiveDensity,
    NoDensity,
    Statistics,
    accumulate,
    plan_growth,
    prune_mask,
    rows,
    split_children,
)
from dg.core.gaussians import RawGaussians, ball
from dg.core.optim_edit import Edit, LearningRates, make_adam
from dg.core.rng import generator
from dg.core.splat import rotation_from_quat


def raw_with(scales, opacities=None) -> RawGaussians:
    n = len(scales)
    raw = ball(generator(0, "init"), num_points=max(n, 5))
    raw = rows(raw, torch.arange(len(raw)) < n)
    opacities = torch.full((n,), 0.5) if opacities is None else torch.tensor(opacities)
    return replace(
        raw, log_scales=torch.tensor(scales).log()[:, None].repeat(1, 3), opacity_logits=opacities.logit()[:, None]
    )


def test_statistics_are_in_ndc_and_count_only_what_is_visible():
    stats = Statistics.zeros(3)
    grad = torch.tensor([[3.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    radii = torch.tensor([4.0, 2.0, 0.0])
    stats = accumulate(stats, grad, radii, height=100, width=200)
    stats = accumulate(stats, grad, torch.tensor([1.0, 0.0, 0.0]), height=100, width=200)
    assert stats.grad_sum.tolist() == [600.0, 100.0, 0.0]
    assert stats.count.tolist() == [2.0, 1.0, 0.0]
    assert stats.max_radius_px.tolist() == [4.0, 2.0, 0.0]
    assert stats.mean_grad.tolist() == [300.0, 100.0, 0.0]


def test_clone_and_split_masks():
    plan = plan_growth(
        torch.tensor([0.01, 0.02, 0.009, 0.5]), torch.tensor([0.04, 0.041, 0.1, 0.01]), threshold=0.01, split_above=0.04
    )
    assert plan.clone.tolist() == [True, False, False, True]
    assert plan.split.tolist() == [False, True, False, False]


def test_prune_masks():
    raw = raw_with([0.01, 0.01, 0.5], [0.5, 0.009, 0.5])
    assert prune_mask(raw, min_opacity=0.01, max_scale=0.4).tolist() == [False, True, True]


def test_children_are_smaller_and_drawn_from_the_parent():
    parent = raw_with([0.1])
    parent = replace(
        parent, log_scales=torch.tensor([[0.2, 0.1, 0.05]]).log(), quats=torch.tensor([[0.5, 0.5, -0.5, 0.5]])
    )
    children = split_children(parent, generator(0, "split"), children=4000)
    shrink = math.log(0.8 * 4000)
    torch.testing.assert_close(children.log_scales, parent.log_scales.expand(4000, 3) - shrink)
    R = rotation_from_quat(parent.quats)[0]
    local = (children.means - parent.means) @ R
    torch.testing.assert_close(local.std(0), torch.tensor([0.2, 0.1, 0.05]), rtol=0.06, atol=0)


def test_two_children_shrink_by_1_6():
    parent = raw_with([0.16])
    assert split_children(parent, generator(0, "s")).log_scales.exp().flatten().tolist() == pytest.approx([0.1] * 6)


def test_rotation_of_a_quarter_turn_about_z():
    R = rotation_from_quat(torch.tensor([[1.0, 0, 0, 1.0]]))[0]
    torch.testing.assert_close(R @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1.0, 0]), atol=1e-6, rtol=0)


def stage(raw):
    params = nn.ParameterDict({k: nn.Parameter(v) for k, v in raw.as_dict().items()})
    optimizer = make_adam(params, LearningRates())
    sum((p**2).sum() for p in params.values()).backward()
    optimizer.step()
    return params, optimizer


def test_edit_keeps_moments_of_kept_rows_and_zeroes_those_of_new_ones():
    raw = raw_with([0.1, 0.2, 0.3])
    params, optimizer = stage(raw)
    before = {g["name"]: optimizer.state[g["params"][0]]["exp_avg"].clone() for g in optimizer.param_groups}
    step = optimizer.state[params["means"]]["step"].clone()
    append = rows(RawGaussians(**{k: p.detach() for k, p in params.items()}), torch.tensor([True, False, False]))
    optim_edit.apply(optimizer, params, Edit(torch.tensor([True, False, True]), append))
    for group in optimizer.param_groups:
        name, (p,) = group["name"], group["params"]
        assert p is params[name]
        moment = optimizer.state[p]["exp_avg"]
        torch.testing.assert_close(moment[:2], before[name][[0, 2]])
        assert (moment[2] == 0).all() and len(moment) == 3
        assert optimizer.state[p]["step"] == step
    assert len(optimizer.state) == len(optimizer.param_groups)


def test_edit_replace_zeroes_moments_of_that_attribute_alone():
    params, optimizer = stage(raw_with([0.1, 0.2]))
    new = torch.zeros(2, 1)
    optim_edit.apply(optimizer, params, Edit(torch.tensor([True, True]), replace={"opacity_logits": new}))
    assert (params["opacity_logits"] == 0).all()
    assert (optimizer.state[params["opacity_logits"]]["exp_avg"] == 0).all()
    assert (optimizer.state[params["means"]]["exp_avg"] != 0).any()
    with pytest.raises(KeyError, match="opacity"):
        optim_edit.apply(optimizer, params, Edit(torch.tensor([True, True]), replace={"opacity": new}))


def test_edited_parameters_go_on_training():
    params, optimizer = stage(raw_with([0.1, 0.2]))
    optim_edit.apply(optimizer, params, Edit(torch.tensor([False, True])))
    before = params["means"].detach().clone()
    optimizer.zero_grad()
    (params["means"] ** 2).sum().backward()
    optimizer.step()
    assert (params["means"] != before).all()


def test_when_the_release_densifies():
    rule = AdaptiveDensity(spare_last_interval=False)
    assert [s for s in range(1, 501) if rule.fires(s, 500)] == [100, 200, 300, 400, 500]
    assert [s for s in range(1, 501) if AdaptiveDensity().fires(s, 500)] == [100, 200, 300, 400]
    text = AdaptiveDensity(start=0, interval=50, spare_last_interval=False)
    assert [s for s in range(1, 501) if text.fires(s, 500)] == list(range(50, 501, 50))


def test_densify_clones_splits_and_prunes_what_it_should():
    raw = raw_with([0.02, 0.1, 0.02, 0.02], [0.5, 0.5, 0.001, 0.5])
    stats = replace(Statistics.zeros(4), grad_sum=torch.tensor([1.0, 1.0, 0.0, 0.0]), count=torch.ones(4))
    result = AdaptiveDensity().edit(100, 500, raw, stats, generator(0, "d"))
    assert (result.clones, result.splits, result.prunes) == (1, 1, 1)
    assert result.edit.keep.tolist() == [True, False, False, True]
    assert len(result.edit.append) == 3
    torch.testing.assert_close(result.edit.append.means[0], raw.means[0])


def test_nothing_is_due_between_intervals():
    assert AdaptiveDensity().edit(150, 500, raw_with([0.1]), Statistics.zeros(1), generator(0, "d")) is None
    assert NoDensity().edit(100, 500, raw_with([0.1]), Statistics.zeros(1), generator(0, "d")) is None


def test_emptying_the_model_is_an_error_not_an_empty_model():
    with pytest.raises(FloatingPointError, match="would remove all 2 Gaussians"):
        AdaptiveDensity().edit(100, 500, raw_with([0.1, 0.1], [0.001, 0.001]), Statistics.zeros(2), generator(0, "d"))


def test_final_prune_does_not_empty_the_model_off_the_interval():
    """The release's radius criterion deletes what is visible when iters is no multiple of the interval (130, 100)."""
    raw = raw_with([0.05] * 6)
    stats = accumulate(Statistics.zeros(6), torch.ones(6, 2), torch.full((6,), 7.0), 128, 128)
    assert AdaptiveDensity().final(raw, stats).prunes == 0
    assert AdaptiveDensity(legacy_screen_prune=True).final(raw, stats).prunes == 6


def test_opacity_reset():
    raw = raw_with([0.1, 0.1], [0.9, 0.05])
    rule = AdaptiveDensity(opacity_reset_interval=50)
    result = rule.edit(150, 500, raw, Statistics.zeros(2), generator(0, "d"))
    torch.testing.assert_close(result.edit.replace["opacity_logits"].sigmoid(), torch.tensor([[0.01], [0.01]]))


def test_inert_settings_are_named():
    assert AdaptiveDensity().inert(500) == []
    assert "start=100" in AdaptiveDensity().inert(50)[0]
    assert "never fires" in AdaptiveDensity(opacity_reset_interval=700).inert(500)[0]
    assert "longer than the run" in AdaptiveDensity(start=0, interval=100).inert(60)[0]


def test_growth_stops_at_the_limit():
    raw = raw_with([0.02] * 4)
    stats = replace(Statistics.zeros(4), grad_sum=torch.ones(4), count=torch.ones(4))
    assert AdaptiveDensity(max_gaussians=7).edit(100, 500, raw, stats, generator(0, "d")).clones == 0
    assert AdaptiveDensity(max_gaussians=8).edit(100, 500, raw, stats, generator(0, "d")).clones == 4
