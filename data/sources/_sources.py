"""The benchmarks that are read from files: what their files are, where they come from, and how they are divided."""

import json
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

from jaxmeta.data.sources import _pickles, _readers, _sentences
from jaxmeta.data.sources._download import Remote
from jaxmeta.data.sources._readers import Reader
from jaxmeta.data.sources._tfds import Prepared


class Layout(NamedTuple):
    """One way in which a benchmark's files may lie."""

    files: tuple[tuple[str, ...], ...]
    """Archives, folders and files that must be there; each may have one of several names."""
    read: Reader
    """Reads them."""
    cached: bool = True
    """Whether the result is kept; not worth it for what is stored as arrays."""

    def __str__(self) -> str:
        return " + ".join(" or ".join(names) for names in self.files)


class Source(NamedTuple):
    """A benchmark."""

    about: str
    """What it is, in one line."""
    layouts: tuple[Layout, ...]
    """Looked for in this order."""
    remotes: tuple[Remote, ...]
    """What to fetch; the names are those of a layout."""
    kind: Literal["images", "text"] = "images"
    """What the examples are."""
    size: int = 84
    """Height and width of images, or length of the vectors of sentences, if not asked for otherwise."""
    scalable: bool = True
    """Whether it can be asked for otherwise."""
    prepared: Prepared | None = None
    """What TFDS calls it."""
    random: tuple[int, int, int] = (64, 16, 20)
    """In which proportions `split="random"` divides the classes."""
    per_class: int | None = None
    """How many examples of each class are read, if not asked for otherwise; all if `None`."""


@cache
def standard_splits(name: str) -> dict[str, dict[str, list[str]]]:
    """Return the published splits of a benchmark: class names by part by split; the first is the default."""
    path = resources.files("jaxmeta.data") / f"splits/{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _endings(pattern: str, *parts: str) -> tuple[tuple[str, ...], ...]:
    """Return the names of one file for each part; a part may have two names, `a|b`."""
    return tuple(tuple(pattern.format(name) for name in part.split("|")) for part in parts)


_CACHES = _endings("mini-imagenet-cache-{}.pkl", "train", "validation|val", "test")
_CATEGORIES = _endings("miniImageNet_category_split_{}.pickle", "train_phase_train", "val", "test")
_CIFAR_FS, _FC100 = (_endings(name + "_{}.pickle", "train", "val", "test") for name in ("CIFAR_FS", "FC100"))
_TIERED = _endings("{}_images_png.pkl", *(f"{part}|tiered-imagenet-{part}" for part in ("train", "val", "test")))
_TIERED += _endings("{}_labels.pkl", *(f"{part}|tiered-imagenet-{part}" for part in ("train", "val", "test")))
_CIFAR = (("cifar-100-python.tar.gz", "cifar-100-python"),)
_VGG = "https://www.robots.ox.ac.uk/~vgg/data/"
_GITHUB = "https://raw.githubusercontent.com/"
_ZENODO = "https://zenodo.org/records/7978538"
_CIFAR_REMOTE = Remote(
    "cifar-100-python.tar.gz",
    169,
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "md5:eb9058c3a382ffc7106e4002c42a8d85",
)
_BANKING = f"{_GITHUB}PolyAI-LDN/task-specific-datasets/master/banking_data/"

SOURCES: dict[str, Source] = {
    "banking77": Source(
        "Banking77: 13,083 customers' questions of 77 intents (Casanueva et al. 2020)",
        (Layout((("train.csv",), ("test.csv",)), _sentences.csv_rows, cached=False),),
        (
            Remote(
                "train.csv",
                0.8,
                f"{_BANKING}train.csv",
                "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            ),
            Remote(
                "test.csv",
                0.2,
                f"{_BANKING}test.csv",
                "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
            ),
        ),
        kind="text",
        size=2048,
        random=(25, 25, 27),
    ),
    "cifar-fs": Source(
        "CIFAR-FS: 100 classes of 600 images of 32x32 from CIFAR-100 (Bertinetto et al. 2019)",
        (
            Layout(_CIFAR, _pickles.cifar100, cached=False),
            Layout(_CIFAR_FS, _pickles.label_pickles(*_CIFAR_FS), cached=False),
            Layout((("cifar-fs.zip", "cifar-fs", "cifar100"),), _readers.class_folders),
        ),
        (_CIFAR_REMOTE,),
        size=32,
        scalable=False,
        prepared=Prepared("cifar100"),
    ),
    "clinc150": Source(
        "CLINC150: 22,500 requests of 150 intents in 10 domains (Larson et al. 2019)",
        (Layout((("data_full.json",),), _sentences.intents, cached=False),),
        (
            Remote(
                "data_full.json",
                2.5,
                f"{_GITHUB}clinc/oos-eval/master/data/data_full.json",
                "sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
            ),
        ),
        kind="text",
        size=2048,
    ),
    "cub200": Source(
        "CUB-200-2011: 200 birds, 11,788 photos (Wah et al. 2011)",
        (Layout((("CUB_200_2011.tgz", "CUB_200_2011"),), _readers.class_folders),),
        (
            Remote(
                "CUB_200_2011.tgz",
                1151,
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            ),
        ),
        prepared=Prepared("caltech_birds2011"),
    ),
    "dtd": Source(
        "Describable textures: 47 textures of 120 photos (Cimpoi et al. 2014)",
        (Layout((("dtd-r1.0.1.tar.gz", "dtd"),), _readers.class_folders),),
        (
            Remote(
                "dtd-r1.0.1.tar.gz",
                625,
                f"{_VGG}dtd/download/dtd-r1.0.1.tar.gz",
                "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            ),
        ),
        prepared=Prepared("dtd"),
    ),
    "fc100": Source(
        "FC100: 100 classes of 600 images of 32x32 from CIFAR-100, divided by superclass (Oreshkin et al. 2018)",
        (
            Layout(_CIFAR, _pickles.cifar100, cached=False),
            Layout(_FC100, _pickles.label_pickles(*_FC100), cached=False),
        ),
        (_CIFAR_REMOTE,),
        size=32,
        scalable=False,
        prepared=Prepared("cifar100"),
    ),
    "fgvc-aircraft": Source(
        "FGVC-Aircraft: 100 variants of 100 photos, cut to the aircraft (Maji et al. 2013)",
        (Layout((("fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b"),), _readers.aircraft),),
        (
            Remote(
                "fgvc-aircraft-2013b.tar.gz",
                2753,
                f"{_VGG}fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                "md5:d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    ),
    "fungi": Source(
        "FGVCx Fungi: 1,394 species, 89,760 photos (Schroeder and Cui 2018)",
        (
            Layout((("fungi_train_val.tgz",), ("train_val_annotations.tgz",)), _readers.fungi),
            Layout((("images",), ("train.json",), ("val.json",)), _readers.fungi),
        ),
        (
            Remote(
                "fungi_train_val.tgz",
                12_900,
                "https://labs.gbif.org/fgvcx/2018/fungi_train_val.tgz",
                "md5:df2b2980835668ed1d9a0e286e4bdadd",
            ),
            Remote(
                "train_val_annotations.tgz",
                2.9,
                "https://labs.gbif.org/fgvcx/2018/train_val_annotations.tgz",
                "md5:c3c0f1b8a8d0b60619c43d9c89bdbc7e",
            ),
        ),
    ),
    "huffpost": Source(
        "HuffPost headlines: 900 of each of 41 categories (Misra 2022; Bao et al. 2020)",
        (
            Layout(
                (("News_Category_Dataset_v3.json", "News_Category_Dataset_v2.json"),),
                _sentences.headlines,
                cached=False,
            ),
        ),
        (Remote("News_Category_Dataset_v3.json", 87, "https://www.kaggle.com/datasets/rmisra/news-category-dataset"),),
        kind="text",
        size=2048,
        per_class=900,
    ),
    "mini-imagenet": Source(
        "mini-ImageNet: 100 classes of 600 photos of 84x84 (Vinyals et al. 2016; Ravi and Larochelle 2017)",
        (
            Layout(_CACHES, _pickles.class_dict_pickles(*_CACHES), cached=False),
            Layout(_CATEGORIES, _pickles.label_pickles(*_CATEGORIES), cached=False),
            Layout((("images", "images.zip"), ("train.csv",), ("val.csv",), ("test.csv",)), _readers.listed_images),
            Layout((("mini-imagenet", "miniimagenet", "mini-imagenet.zip"),), _readers.class_folders),
        ),
        (
            Remote("mini-imagenet-cache-train.pkl", 813, _ZENODO),
            Remote("mini-imagenet-cache-validation.pkl", 203, _ZENODO),
            Remote("mini-imagenet-cache-test.pkl", 254, _ZENODO),
        ),
    ),
    "quickdraw": Source(
        "Quick, Draw!: 345 things, drawings of 28x28 (Ha and Eck 2017); the first 1,000 of each",
        (Layout((("numpy_bitmap", "quickdraw"),), _pickles.drawings, cached=False),),
        (
            Remote(
                "numpy_bitmap", 39_500, "https://console.cloud.google.com/storage/quickdraw_dataset/full/numpy_bitmap"
            ),
        ),
        size=28,
        scalable=False,
        prepared=Prepared("quickdraw_bitmap", channels=1),
        per_class=1000,
    ),
    "tiered-imagenet": Source(
        "tiered-ImageNet: 608 classes, 779,165 photos of 84x84, divided by category (Ren et al. 2018)",
        (
            Layout((("tiered-imagenet.tar", "tiered_imagenet.tar"),), _pickles.png_pickles),
            Layout(_TIERED, _pickles.png_pickles),
            Layout((("ILSVRC2012_img_train", "tiered-imagenet"),), _readers.class_folders),
        ),
        (Remote("tiered-imagenet.tar", 12_000, "https://github.com/renmengye/few-shot-ssl-public"),),
    ),
    "vgg-flowers102": Source(
        "VGG Flowers: 102 flowers, 8,189 photos (Nilsback and Zisserman 2008)",
        (Layout((("102flowers.tgz", "jpg"), ("imagelabels.mat",)), _readers.flowers),),
        (
            Remote(
                "102flowers.tgz",
                345,
                f"{_VGG}flowers/102/102flowers.tgz",
                "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            ),
            Remote(
                "imagelabels.mat",
                0.0005,
                f"{_VGG}flowers/102/imagelabels.mat",
                "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            ),
        ),
        prepared=Prepared("oxford_flowers102", lambda index, _: f"{index + 1:03}"),
    ),
}
