"""Scenes in files: exact round trips, and refusal of what is not one."""

import hashlib
import io
import json
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffdeblend.background as backgrounds
import diffdeblend.components as components
from diffdeblend.background import (
    ConstantBackground,
    MeshBackground,
    PolynomialBackground,
    SplineBackground,
)
from diffdeblend.components import (
    AnySource,
    BulgeDisc,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    Kind,
    MultiGaussian,
    Pixels,
    PointSource,
    Sersic,
    Stack,
    any_stack,
    stack_components,
)
from diffdeblend.exposure import Header
from diffdeblend.io.scene import FORMAT_VERSION, KNOWN, load_scene, save_scene
from diffdeblend.scene import Scene

FLUX = np.array([1.5, -0.25])  # two bands, one negative
G = np.array([0.1, -0.3])


def two(flux=FLUX):
    return np.stack([flux, 0.5 * flux])


# Every component, off the symmetric point.
SOURCES = {
    "point": lambda: PointSource(FLUX, 3.25, 7.5),
    "gaussian": lambda: Gaussian(FLUX, 3.25, 7.5, 1.7, G),
    "multi_gaussian": lambda: MultiGaussian(np.stack([FLUX] * 4), 3.25, 7.5, 1.7, G),
    "three_gaussians": lambda: MultiGaussian(np.stack([FLUX] * 3), 3, 7, 1, G, np.arange(1.0, 4)),
    "sersic": lambda: Sersic(FLUX, 3.25, 7.5, 1.7, 2.2, G),
    "exponential": lambda: Exponential(FLUX, 3.25, 7.5, 1.7, G),
    "de_vaucouleurs": lambda: DeVaucouleurs(FLUX, 3.25, 7.5, 1.7, G),
    "bulge_disc": lambda: BulgeDisc(two(), 3.25, 7.5, 1.7, 0.3, G),
    "pixels": lambda: Pixels(FLUX, 3.25, 7.5, np.arange(15.0).reshape(3, 5), blur=0.7),
    "pixels_of_parts": lambda: Pixels(
        two(), 3.25, 7.5, np.ones((2, 3, 3)), monotonic=False, symmetric=True
    ),
    "any_source": lambda: AnySource(
        np.stack([FLUX] * AnySource.parts), 3.25, 7.5, 1.7, 2.2, 0.4, G, Kind.BULGE_DISC
    ),
}
SKIES = {
    "none": lambda: None,
    "constant": lambda: ConstantBackground(0.1 * FLUX),
    "polynomial": lambda: PolynomialBackground(np.outer(FLUX, np.arange(6))),
    "mesh": lambda: MeshBackground(np.arange(12.0).reshape(2, 2, 3)),
    "spline": lambda: SplineBackground(np.arange(12.0).reshape(2, 2, 3), (8, 9)),
}


def same(one, other):
    """Equal in structure, class, type and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert isinstance(b, jax.Array)
        assert a.dtype == b.dtype
        assert not b.weak_type
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def there_and_back(scene, folder):
    save_scene(scene, folder / "scene.eqx")
    return load_scene(folder / "scene.eqx")[0]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_every_component(source, tmp_path):
    scene = Scene([source()])
    same(scene, there_and_back(scene, tmp_path))


@pytest.mark.parametrize("sky", SKIES.values(), ids=SKIES.keys())
def test_every_background(sky, tmp_path):
    scene = Scene([SOURCES["sersic"]()], sky(), dx=[0.1, -0.2], dy=[0.0, 0.3])
    same(scene, there_and_back(scene, tmp_path))


def test_padded_stacks(tmp_path):
    points = [PointSource(FLUX, x, 2.0) for x in (1.0, 4.0)]
    scene = Scene([stack_components(points, size=4, rank=[2, 0])])
    back = there_and_back(scene, tmp_path)
    same(scene, back)
    assert back.n_sources == 2
    assert [float(c.x) for c in back.components()] == [4.0, 1.0]


def test_scene_of_a_fit(tmp_path):
    stack = stack_components([SOURCES["any_source"]()] * 2, size=4)
    scene = Scene([any_stack(stack)], SKIES["constant"]())
    same(scene, there_and_back(scene, tmp_path))


@given(
    st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, max_size=6),
    st.sampled_from(sorted(SKIES)),
    st.lists(st.floats(width=32), min_size=2, max_size=2),
)
@settings(deadline=None, max_examples=25)
def test_mixtures(tmp_path_factory, names, sky, shift):
    scene = Scene([SOURCES[name]() for name in names], SKIES[sky](), dx=shift)
    back = there_and_back(scene, tmp_path_factory.mktemp("mixture"))
    same(scene, back)
    assert [type(c) for c in back.components()] == [type(c) for c in scene.components()]


def test_known_classes_are_all_classes():
    """A new family member must be added where files are read, or its scenes would not load."""
    every = {
        value
        for module in (components, backgrounds)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, components.AbstractComponent | backgrounds.AbstractBackground | Stack)
        and not value.__name__.startswith("Abstract")
    }
    assert every | {Scene} == set(KNOWN.values())


def test_float64(tmp_path):
    with jax.enable_x64(True):
        scene = Scene([PointSource(np.array([1 / 3]), 1 / 7, 2.0)])
        assert scene.dx.dtype == jnp.float64
        same(scene, there_and_back(scene, tmp_path))
    with pytest.raises(ValueError, match="jax_enable_x64"):
        load_scene(tmp_path / "scene.eqx")


def test_head(tmp_path):
    header = Header(bands=("g", "r"), zero_points=(27.0, 27.5), unit="nJy")
    save_scene(Scene([SOURCES["point"]()]), tmp_path / "scene.eqx", header)
    head = load_scene(tmp_path / "scene.eqx")[1]
    assert head["bands"] == ["g", "r"]
    assert head["zero_points"] == [27.0, 27.5]
    assert head["unit"] == "nJy"
    assert head["version"] == FORMAT_VERSION
    first = (tmp_path / "scene.eqx").read_bytes().split(b"\n", 1)[0]
    assert json.loads(first) == head


class Own(PointSource):
    """A component that the package does not know."""


class Named(PointSource):
    """A static value that JSON does not have."""

    names: frozenset[str] = eqx.field(static=True, default=frozenset("a"))


def test_classes_of_the_user(tmp_path):
    scene = Scene([Own(FLUX, 1.0, 2.0)])
    with pytest.raises(ValueError, match=r"is a Own.*classes=\[Own\]"):
        save_scene(scene, tmp_path / "scene.eqx")
    assert not list(tmp_path.iterdir())
    save_scene(scene, tmp_path / "scene.eqx", classes=[Own])
    with pytest.raises(ValueError, match="is a 'Own'; known are"):
        load_scene(tmp_path / "scene.eqx")
    same(scene, load_scene(tmp_path / "scene.eqx", classes=[Own])[0])


def test_what_cannot_be_described(tmp_path):
    scene = Scene([SOURCES["pixels"]()])
    odd = eqx.tree_at(lambda s: s.sources[0].members, scene, lambda: None)
    with pytest.raises(ValueError, match=r"sources\[0\]\.members"):
        save_scene(odd, tmp_path / "scene.eqx")
    with pytest.raises(ValueError, match="names` must be a bool, an int"):
        save_scene(Scene([Named(FLUX, 1.0, 2.0)]), tmp_path / "scene.eqx", classes=[Named])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "scene.eqx"
    save_scene(Scene([source() for source in SOURCES.values()], SKIES["mesh"]()), path)
    return path


def test_truncated_anywhere(saved):
    whole = saved.read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        saved.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="cut short"):
            load_scene(saved)
    saved.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut short"):
        load_scene(saved)


def test_damaged(saved):
    whole = bytearray(saved.read_bytes())
    whole[-5] ^= 1
    saved.write_bytes(whole)
    with pytest.raises(ValueError, match="checksum"):
        load_scene(saved)


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY", b"SIMPLE  =  T", b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"format": 1}']
)
def test_foreign(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match="is no scene of diffdeblend"):
        load_scene(tmp_path / "other")


def test_missing(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load_scene(tmp_path / "none.eqx")


def rewrite(path, change, numbers=None):
    """A file with another head, and numbers whose checksum fits."""
    line, old = path.read_bytes().split(b"\n", 1)
    numbers = old if numbers is None else numbers
    head = json.loads(line)
    head |= {"bytes": len(numbers), "sha256": hashlib.sha256(numbers).hexdigest()}
    change(head)
    path.write_bytes(json.dumps(head).encode() + b"\n" + numbers)


def test_newer(saved):
    rewrite(saved, lambda head: head.update(version=FORMAT_VERSION + 1, diffdeblend="9.9"))
    with pytest.raises(ValueError, match=r"made by diffdeblend 9\.9.*Update"):
        load_scene(saved)


def edit(*path, value):
    """Set an entry of the head's structure."""

    def change(head):
        place = head["scene"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("class", value="Popen"), "is a 'Popen'"),
        (edit("class", value=["Scene"]), "is a "),
        (edit("class", value="PointSource"), "has the fields"),
        (edit("fields", "extra", value=None), "has the fields"),
        (edit("fields", "dx", value=3), "is 3"),
        (edit("fields", "dx", value={"shape": [-1], "dtype": "float32"}), "has the shape"),
        (edit("fields", "dx", value={"shape": [2], "dtype": "object"}), "has the type"),
        (edit("fields", "dx", value={"shape": [3], "dtype": "float32"}), "does not announce"),
        (edit("fields", "dx", value={"shape": [2], "dtype": "int32"}), "does not announce"),
        (edit("fields", "dx", value=None), "announce"),
        (edit("fields", "dx", value={"shap": [3]}), "has the keys"),
        (lambda head: head.update(scene=None), "is no Scene"),
        (lambda head: head.pop("scene"), "is no Scene"),
    ],
)
def test_wrong_structure(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message):
        load_scene(saved)


def test_more_arrays_than_announced(saved):
    extra = io.BytesIO()
    np.save(extra, np.zeros(2))
    numbers = saved.read_bytes().split(b"\n", 1)[1] + extra.getvalue()
    rewrite(saved, lambda head: None, numbers)
    with pytest.raises(ValueError, match="more arrays"):
        load_scene(saved)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_pickles_are_never_loaded(saved):
    for numbers in (pickle.dumps(Bomb()), _object_array()):
        rewrite(saved, lambda head: None, numbers)
        with pytest.raises(ValueError, match="path"):
            load_scene(saved)


def _object_array():
    content = io.BytesIO()
    np.save(content, np.array([Bomb()], dtype=object), allow_pickle=True)
    return content.getvalue()


def test_a_failed_save_leaves_what_was_there(saved):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="Own"):
        save_scene(Scene([Own(FLUX, 1.0, 2.0)]), saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["scene.eqx"]
