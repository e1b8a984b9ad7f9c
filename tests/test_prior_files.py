"""Priors in files: exact round trips, and refusal of what is not one."""

import hashlib
import io
import json
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend import PointSource, Scene
from diffdeblend.components import Decoder, Frame
from diffdeblend.io.priors import FORMAT_VERSION, load_prior, save_prior
from diffdeblend.io.scene import load_scene, save_scene
from diffdeblend.priors import DecoderPrior, ParametricPrior, Training, gaussian_mixture
from diffdeblend.priors.flow import make_flow

FRAME = Frame(size=13, psf_sigma=0.9, pixel_scale=0.168)
TRAINING = Training("hills", '{"a":1}', "ab", 3, 100, 1.5, None, (("jax", "0.1"), ("x", "2")))


def make_prior(warp=None):
    first, last = (
        eqx.nn.Linear(a, b, key=jax.random.key(b), dtype=jnp.float32)
        for a, b in ((4, 16), (16, 169))
    )
    mean = jax.random.normal(jax.random.key(1), (13, 13), jnp.float32)
    return DecoderPrior(Decoder((first, last), mean, FRAME, warp), TRAINING)


def same(one, other):
    """Equal in structure, class, type and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert isinstance(b, jax.Array)
        assert a.dtype == b.dtype
        assert not b.weak_type
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("warp", [None, make_flow(4, 2, 8, jax.random.key(0))], ids=["no", "flow"])
def test_there_and_back(warp, tmp_path):
    prior = make_prior(warp)
    save_prior(prior, tmp_path / "prior.eqx")
    back = load_prior(tmp_path / "prior.eqx")
    same(prior, back)
    assert back.training == TRAINING
    assert back.frame == FRAME
    assert isinstance(back.frame, Frame)
    assert [path.name for path in tmp_path.iterdir()] == ["prior.eqx"]


def test_half_is_half_as_large_and_as_near_as_it_can_be(tmp_path):
    prior = make_prior()
    sizes = {}
    for half in (False, True):
        path = tmp_path / f"{half}.eqx"
        save_prior(prior, path, half=half)
        sizes[half] = path.stat().st_size
    back = load_prior(tmp_path / "True.eqx")
    weight, near = prior.decoder.layers[1].weight, back.decoder.layers[1].weight
    # Only the large array is halved: two bytes less for each of its numbers.
    assert sizes[False] - sizes[True] == pytest.approx(2 * weight.size, abs=300)
    assert near.dtype == jnp.float32
    np.testing.assert_array_equal(
        np.asarray(near), np.asarray(weight).astype(np.float16).astype(np.float32)
    )
    np.testing.assert_array_equal(np.asarray(back.decoder.mean), np.asarray(prior.decoder.mean))
    # What has been halved once does not change again.
    save_prior(back, tmp_path / "again.eqx", half=True)
    same(back, load_prior(tmp_path / "again.eqx"))


def test_half_refuses_what_is_too_large_for_it(tmp_path):
    prior = eqx.tree_at(
        lambda p: p.decoder.layers[1].weight, make_prior(), replace_fn=lambda w: 1e6 + w
    )
    with pytest.raises(ValueError, match="`half`: the prior as float16 has weights that are not"):
        save_prior(prior, tmp_path / "prior.eqx", half=True)
    assert not list(tmp_path.iterdir())


def test_scene_of_decoded_galaxies(tmp_path):
    prior = make_prior()
    galaxies = [prior.source([5.0, 6.0], x, 3.0, jnp.full(4, x)) for x in (1.0, 2.5)]
    scene = Scene([*galaxies, PointSource(np.ones(2), 3.0, 4.0)])
    save_scene(scene, tmp_path / "scene.eqx")
    back, _ = load_scene(tmp_path / "scene.eqx")
    same(scene, back)
    # The decoder is there once.
    assert (tmp_path / "scene.eqx").stat().st_size < 2 * 4 * 16 * 169


def test_scene_of_a_version_without_shared_parts(tmp_path):
    scene = Scene([PointSource(np.ones(2), 3.0, 4.0)])
    save_scene(scene, tmp_path / "scene.eqx")

    def older(head):
        head["version"] = 1
        for stack in head["scene"]["fields"]["sources"]["tuple"]:
            assert stack["fields"].pop("shared") is None

    same(scene, load_scene(changed(tmp_path / "scene.eqx", older))[0])


# What may be wrong with a file.


def changed(path, change, numbers=None):
    """The file with another head, and other numbers if given."""
    line, rest = path.read_bytes().split(b"\n", 1)
    head = json.loads(line)
    if numbers is not None:
        rest = numbers
        head["bytes"], head["sha256"] = len(rest), hashlib.sha256(rest).hexdigest()
    change(head)
    path.write_bytes(json.dumps(head).encode() + b"\n" + rest)
    return path


@pytest.fixture
def path(tmp_path):
    save_prior(make_prior(), tmp_path / "prior.eqx")
    return tmp_path / "prior.eqx"


def decoder_of(head):
    return head["prior"]["fields"]["decoder"]["fields"]


def newer(head):
    head["version"] = FORMAT_VERSION + 1


def scene_format(head):
    head["format"] = "diffdeblend scene"


def other_frame(head):
    decoder_of(head)["frame"]["static"]["fields"]["size"] = 15


def even_frame(head):
    decoder_of(head)["frame"]["static"]["fields"]["size"] = 12


def unknown_class(head):
    head["prior"]["class"] = "system"


def no_prior(head):
    head["prior"] = head["prior"]["fields"]["decoder"]


def module_as_static(head):
    decoder_of(head)["frame"]["static"]["class"] = "Linear"


def frame_of_other_fields(head):
    decoder_of(head)["frame"]["static"]["fields"]["colour"] = 1


def other_layer(head):
    decoder_of(head)["layers"]["tuple"][0]["fields"]["in_features"] = {"static": 5}


def larger_leaf(head):
    decoder_of(head)["mean"]["shape"] = [14, 14]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer, "of version 2 of the format, made by"),
        (scene_format, "is no prior of diffdeblend"),
        (other_frame, "`mean` needs shape"),
        (even_frame, "`size` must be odd"),
        (unknown_class, "is a 'system'; known are"),
        (no_prior, "is no DecoderPrior"),
        (module_as_static, "is a 'Linear', which cannot stand there"),
        (frame_of_other_fields, "has the wrong fields"),
        (other_layer, "has a layer from 5 to 16 numbers with weights of shapes"),
        (larger_leaf, "has arrays that its head does not announce"),
    ],
)
def test_refuses_other_heads(path, change, message):
    with pytest.raises(ValueError, match=message):
        load_prior(changed(path, change))


def test_refuses_weights_that_are_not_finite(path, tmp_path):
    prior = make_prior()
    prior = eqx.tree_at(
        lambda p: p.decoder.mean, prior, replace_fn=lambda m: m.at[2, 3].set(jnp.inf)
    )
    with pytest.raises(ValueError, match="`prior` has weights that are not finite"):
        save_prior(prior, tmp_path / "other.eqx")
    numbers = io.BytesIO()
    eqx.tree_serialise_leaves(numbers, prior)
    with pytest.raises(ValueError, match="has weights that are not finite"):
        load_prior(changed(path, lambda head: None, numbers.getvalue()))


def test_refuses_what_is_missing_short_damaged_or_foreign(path, tmp_path):
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="there is no file"):
        load_prior(tmp_path / "nowhere.eqx")
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="is cut short"):
        load_prior(path)
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="or its first line is cut short"):
        load_prior(path)
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(ValueError, match="is damaged"):
        load_prior(path)
    for foreign in (pickle.dumps(make_prior().decoder.mean.tolist()), b"", b"\xff\x00\n12"):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match="is no prior of diffdeblend"):
            load_prior(path)


def test_refuses_pickled_arrays(path):
    numbers = io.BytesIO()
    np.save(numbers, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"`path`.*prior\.eqx"):
        load_prior(changed(path, lambda head: None, numbers.getvalue()))


def test_refuses_to_save_what_is_no_prior(tmp_path):
    with pytest.raises(ValueError, match=r"`prior` must be a DecoderPrior or .*; got Decoder"):
        save_prior(make_prior().decoder, tmp_path / "prior.eqx")


# Mixtures over the features of parametric sources.


def make_mixture_prior():
    rng = np.random.default_rng(2)
    root = 0.3 * rng.normal(size=(2, 4, 4)) + np.eye(4)
    mixture = gaussian_mixture(
        [0.3, 0.7], rng.normal(size=(2, 4)), np.einsum("kij,klj->kil", root, root)
    )
    names = ("ln_radius", "logit_index", "magnitude", "colour_g")
    return ParametricPrior(mixture, 0.07, "sersic", names, ("i", "g"), TRAINING)


def test_mixture_there_and_back(tmp_path):
    prior = make_mixture_prior()
    save_prior(prior, tmp_path / "prior.eqx")
    back = load_prior(tmp_path / "prior.eqx")
    same(prior, back)
    assert isinstance(back, ParametricPrior)
    assert back.training == TRAINING
    assert (back.family, back.names, back.bands) == (prior.family, prior.names, prior.bands)
    x = jnp.array([-1.0, 0.3, 22.0, 0.6])
    assert float(back.log_prob(x)) == float(prior.log_prob(x))


def other_family(head):
    head["prior"]["fields"]["family"]["static"] = "spiral"


def other_names(head):
    head["prior"]["fields"]["bands"]["static"] = ["i", "r"]


def other_mixture(head):
    head["prior"]["fields"]["mixture"]["fields"]["means"]["shape"] = [4, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_family, "`family` must be one of"),
        (other_names, "`names` of 'sersic' in the bands"),
        (other_mixture, "arrays that its head does not announce"),
    ],
)
def test_refuses_other_heads_of_mixtures(change, message, tmp_path):
    path = tmp_path / "prior.eqx"
    save_prior(make_mixture_prior(), path)
    with pytest.raises(ValueError, match=message):
        load_prior(changed(path, change))


def test_refuses_mixtures_that_do_not_fit_together(tmp_path):
    prior = make_mixture_prior()
    with pytest.raises(ValueError, match="`prior` has weights that are not finite"):
        save_prior(
            eqx.tree_at(lambda p: p.softening, prior, jnp.asarray(jnp.nan)), tmp_path / "p.eqx"
        )
    short = eqx.tree_at(lambda p: p.mixture.log_weights, prior, jnp.zeros(3))
    with pytest.raises(ValueError, match="`log_weights`, `means` and `whitening` need shapes"):
        save_prior(short, tmp_path / "p.eqx")
    assert not list(tmp_path.iterdir())
