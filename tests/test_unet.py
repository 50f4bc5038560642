"""Networks in the layout of diffusers' UNet2DModel: names, shapes, and what they compute."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from diffcodec.errors import ModelError
from diffcodec.gaussian import ByStep, DiscreteBetas, GaussianModel, linear_betas, samplers
from diffcodec.training import unet
from diffcodec.training.unet import UNet, UNetShape

CIFAR10 = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
"""The configuration of google/ddpm-cifar10-32."""

SMALL = CIFAR10 | {"block_out_channels": [8, 16, 16, 16], "norm_num_groups": 4}


def layout(widths, old=False):
    """Names and shapes of a state dict, block by block as the layout has them."""
    a, b, c, d = widths
    time = 4 * a
    shapes = {}

    def layer(name, *shape):
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    def resnet(name, ins, out):
        layer(f"{name}.norm1", ins)
        layer(f"{name}.conv1", out, ins, 3, 3)
        layer(f"{name}.time_emb_proj", out, time)
        layer(f"{name}.norm2", out)
        layer(f"{name}.conv2", out, out, 3, 3)
        if ins != out:
            layer(f"{name}.conv_shortcut", out, ins, 1, 1)

    def attention(name, width):
        layer(f"{name}.group_norm", width)
        names = (
            ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")
        )
        for part in names:
            layer(f"{name}.{part}", width, width)

    layer("conv_in", a, 3, 3, 3)
    layer("time_embedding.linear_1", time, a)
    layer("time_embedding.linear_2", time, time)
    for number, (ins, out) in enumerate([(a, a), (a, b), (b, c), (c, d)]):
        resnet(f"down_blocks.{number}.resnets.0", ins, out)
        resnet(f"down_blocks.{number}.resnets.1", out, out)
        if number < 3:
            layer(f"down_blocks.{number}.downsamplers.0.conv", out, out, 3, 3)
    ups = [
        [(d + d, d), (d + d, d), (d + c, d)],
        [(d + c, c), (c + c, c), (c + b, c)],
        [(c + b, b), (b + b, b), (b + a, b)],
        [(b + a, a), (a + a, a), (a + a, a)],
    ]
    for number, sizes in enumerate(ups):
        for place, (ins, out) in enumerate(sizes):
            resnet(f"up_blocks.{number}.resnets.{place}", ins, out)
        if number < 3:
            layer(f"up_blocks.{number}.upsamplers.0.conv", out, out, 3, 3)
    for place in range(2):
        attention(f"down_blocks.1.attentions.{place}", b)
        resnet(f"mid_block.resnets.{place}", d, d)
    attention("mid_block.attentions.0", d)
    for place in range(3):
        attention(f"up_blocks.2.attentions.{place}", b)
    layer("conv_norm_out", a)
    layer("conv_out", 3, a, 3, 3)
    return shapes


def weights(old=False, seed=0):
    """Random weights of a small network."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.2 * torch.randn(shape, generator=generator)
        for name, shape in layout(SMALL["block_out_channels"], old).items()
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    save_file(weights(), tmp_path / "diffusion_pytorch_model.safetensors")
    return tmp_path


def test_names_and_shapes_are_those_of_the_layout():
    with torch.device("meta"):
        net = UNet(UNetShape.of(CIFAR10))
    assert UNetShape.of(CIFAR10) == UNetShape()
    expected = layout(CIFAR10["block_out_channels"])
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected
    # DDPM's network for CIFAR-10 has 35.7 million parameters.
    assert sum(math.prod(shape) for shape in expected.values()) == pytest.approx(35.7e6, rel=2e-3)


def test_a_folder_loads_and_the_network_predicts(folder):
    net = unet.load(folder).requires_grad_(False)
    for name, value in weights().items():
        assert torch.equal(net.state_dict()[name], value)
    z, steps = torch.randn(3, 3, 16, 24), torch.tensor([0.0, 400.0, 999.0])
    together = net(z, steps)
    assert together.shape == z.shape
    for n in range(3):
        alone = net(z[n : n + 1], steps[n : n + 1])
        torch.testing.assert_close(alone, together[n : n + 1], rtol=1e-4, atol=1e-4)
    assert (net(z, steps.flip(0)) - together)[0].abs().max() > 0.01


def test_older_names_mean_the_same():
    old, new = (UNet(UNetShape.of(SMALL)).requires_grad_(False) for _ in range(2))
    old.load(weights(old=True))
    new.load(weights())
    z, steps = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    assert torch.equal(old(z, steps), new(z, steps))


def test_the_time_is_sines_and_cosines():
    steps = torch.tensor([0.0, 1.0, 36.5, 999.0])
    found = unet.sinusoids(steps, 128)
    for row, step in zip(found, steps, strict=True):
        for number in (0, 1, 31, 63):
            angle = float(step) * 10_000 ** (-number / 63)
            assert float(row[number]) == pytest.approx(math.sin(angle), abs=2e-4)
            assert float(row[64 + number]) == pytest.approx(math.cos(angle), abs=2e-4)


def test_attention_is_a_mean_of_all_places():
    """By its definition, with weights of one head; and with a flat one, the mean itself."""
    torch.manual_seed(0)
    layer = unet.Attention(UNetShape(groups=2), 4).requires_grad_(False)
    x = torch.randn(1, 4, 3, 5)
    flat = F.group_norm(x, 2, layer.group_norm.weight, layer.group_norm.bias, 1e-6)
    places = flat[0].reshape(4, 15).T
    q, k, v = layer.to_q(places), layer.to_k(places), layer.to_v(places)
    odds = (q @ k.T / math.sqrt(4)).softmax(1)
    expected = x + layer.to_out[0](odds @ v).T.reshape(1, 4, 3, 5)
    torch.testing.assert_close(layer(x), expected)
    layer.to_q.weight.zero_()
    layer.to_q.bias.zero_()
    change = layer(x) - x
    torch.testing.assert_close(change, change[:, :, :1, :1].expand_as(change))


def test_residual_blocks_and_what_they_take():
    torch.manual_seed(0)
    shape = UNetShape(widths=(4, 6), attends=(False, False), groups=2)
    stage = unet.Up(shape, [10], 6, False, False).requires_grad_(False)
    x, skip, time = torch.randn(2, 4, 5, 5), torch.randn(2, 6, 5, 5), torch.randn(2, 16)
    part, joined = dict(stage.resnets[0].named_parameters()), torch.cat([x, skip], 1)

    def layer(function, name, *arguments, **options):
        return function(*arguments, part[f"{name}.weight"], part[f"{name}.bias"], **options)

    def convolved(name, norm, value):
        value = layer(F.group_norm, norm, value, 2, eps=1e-6)
        return layer(F.conv2d, name, F.silu(value), padding=1)

    hidden = convolved("conv1", "norm1", joined)
    hidden = hidden + layer(F.linear, "time_emb_proj", F.silu(time))[..., None, None]
    expected = layer(F.conv2d, "conv_shortcut", joined) + convolved("conv2", "norm2", hidden)
    skips = [x, skip]
    torch.testing.assert_close(stage(x, skips, time), expected)
    assert len(skips) == 1


def test_halves_are_padded_at_their_ends():
    layer = unet.Downsampler(1).requires_grad_(False)
    layer.conv.bias.zero_()
    for corner, place in (((0, 0), 0), ((1, 1), 4)):
        layer.conv.weight.zero_()
        layer.conv.weight.view(9)[place] = 1
        x = torch.arange(36.0).reshape(1, 1, 6, 6)
        assert torch.equal(layer(x), x[:, :, corner[0] :: 2, corner[1] :: 2])
    layer.conv.weight.zero_()
    layer.conv.weight.view(9)[8] = 1
    assert torch.equal(layer(x)[0, 0, 2], torch.zeros(3))
    assert torch.equal(layer(x)[0, 0, :2, :2], x[0, 0, 2::2, 2::2])


def test_it_is_a_network_of_the_gaussian_process(folder):
    schedule = DiscreteBetas(linear_betas(1000))
    net = unet.load(folder).requires_grad_(False)
    model = GaussianModel(
        ByStep(net, schedule), schedule, kind="eps", variance="beta", decoder="network"
    )
    z, step = torch.randn(2, 3, 8, 8), torch.tensor([250.0])
    prediction, _ = model(z, schedule.levels[[250]].float())
    torch.testing.assert_close(prediction.eps, net(z, step.expand(2)), rtol=1e-2, atol=1e-2)
    pixels = samplers.decode(model, z, 1.0, "ancestral", steps=3, generator=torch.Generator())
    assert pixels.shape == z.shape


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("act_fn", "relu"),
        ("freq_shift", 0),
        ("flip_sin_to_cos", True),
        ("downsample_padding", 1),
        ("attention_head_dim", 8),
        ("resnet_time_scale_shift", "scale_shift"),
        ("up_block_types", ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]),
        ("down_block_types", ["DownBlock2D", "Other", "DownBlock2D", "DownBlock2D"]),
    ],
)
def test_other_networks_are_refused(name, value):
    with pytest.raises(ModelError, match=name):
        UNetShape.of(CIFAR10 | {name: value})


def test_what_does_not_fit_is_refused(folder):
    net, state = UNet(UNetShape.of(SMALL)), weights()
    for wrong in (
        {name: value for name, value in state.items() if name != "conv_in.bias"},
        state | {"class_embedding.weight": torch.zeros(3)},
        state | {"conv_in.bias": torch.zeros(9)},
    ):
        with pytest.raises(ModelError, match="another network"):
            net.load(wrong)
    with pytest.raises(ModelError, match="norm_eps"):
        UNetShape.of({name: value for name, value in SMALL.items() if name != "norm_eps"})
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be read"):
        unet.load(folder)
