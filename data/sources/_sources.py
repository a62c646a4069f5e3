"""The benchmarks that are read from files, with their papers, layouts and downloads."""

from jaxmeta.data.sources._download import Remote
from jaxmeta.data.sources._layouts import Layout, Source
from jaxmeta.data.sources._pickles import cifar100, class_dict_pickles, drawings, label_pickles, png_pickles
from jaxmeta.data.sources._readers import aircraft, class_folders, flowers, fungi, listed_images
from jaxmeta.data.sources._sentences import csv_rows, headlines, intents
from jaxmeta.data.sources._tfds import Prepared


def _endings(pattern: str, *parts: str) -> tuple[tuple[str, ...], ...]:
    """Returns the possible names of one file for each part. A part may have two names, `a|b`."""
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
        "Casanueva et al., Efficient Intent Detection with Dual Sentence Encoders, 2020, https://arxiv.org/abs/2003.04807",
        (Layout((("train.csv",), ("test.csv",)), csv_rows, cached=False),),
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
        "Bertinetto et al., Meta-learning with differentiable closed-form solvers, 2019, https://arxiv.org/abs/1805.08136",
        (
            Layout(_CIFAR, cifar100, cached=False),
            Layout(_CIFAR_FS, label_pickles(*_CIFAR_FS), "CIFAR_FS_{train,val,test}.pickle", cached=False),
            Layout((("cifar-fs.zip", "cifar-fs", "cifar100"),), class_folders),
        ),
        (_CIFAR_REMOTE,),
        size=32,
        scalable=False,
        prepared=Prepared("cifar100"),
    ),
    "clinc150": Source(
        "CLINC150: 22,500 requests of 150 intents in 10 domains (Larson et al. 2019)",
        "Larson et al., An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction, 2019, "
        "https://arxiv.org/abs/1909.02027",
        (Layout((("data_full.json",),), intents, cached=False),),
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
        "Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011, https://data.caltech.edu/records/65de6-vp158",
        (Layout((("CUB_200_2011.tgz", "CUB_200_2011"),), class_folders),),
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
        "Cimpoi et al., Describing Textures in the Wild, 2014, https://arxiv.org/abs/1311.3618",
        (Layout((("dtd-r1.0.1.tar.gz", "dtd"),), class_folders),),
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
        "Oreshkin et al., TADAM: Task dependent adaptive metric for improved few-shot learning, 2018, "
        "https://arxiv.org/abs/1805.10123",
        (
            Layout(_CIFAR, cifar100, cached=False),
            Layout(_FC100, label_pickles(*_FC100), "FC100_{train,val,test}.pickle", cached=False),
        ),
        (_CIFAR_REMOTE,),
        size=32,
        scalable=False,
        prepared=Prepared("cifar100"),
    ),
    "fgvc-aircraft": Source(
        "FGVC-Aircraft: 100 variants of 100 photos, cut to the aircraft (Maji et al. 2013)",
        "Maji et al., Fine-Grained Visual Classification of Aircraft, 2013, https://arxiv.org/abs/1306.5151",
        (Layout((("fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b"),), aircraft),),
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
        "Schroeder and Cui, FGVCx Fungi Classification Challenge, 2018, https://github.com/visipedia/fgvcx_fungi_comp",
        (
            Layout((("fungi_train_val.tgz",), ("train_val_annotations.tgz",)), fungi),
            Layout((("images",), ("train.json",), ("val.json",)), fungi),
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
        "Misra, News Category Dataset, 2022, https://arxiv.org/abs/2209.11429",
        (
            Layout(
                (("News_Category_Dataset_v3.json", "News_Category_Dataset_v2.json"),),
                headlines,
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
        "Ravi and Larochelle, Optimization as a Model for Few-Shot Learning, 2017, "
        "https://openreview.net/forum?id=rJY0-Kcll",
        (
            Layout(
                _CACHES, class_dict_pickles(*_CACHES), "mini-imagenet-cache-{train,validation,test}.pkl", cached=False
            ),
            Layout(
                _CATEGORIES,
                label_pickles(*_CATEGORIES),
                "miniImageNet_category_split_{train_phase_train,val,test}.pickle",
                cached=False,
            ),
            Layout((("images", "images.zip"), ("train.csv",), ("val.csv",), ("test.csv",)), listed_images),
            Layout((("mini-imagenet", "miniimagenet", "mini-imagenet.zip"),), class_folders),
        ),
        (
            Remote("mini-imagenet-cache-train.pkl", 813, _ZENODO),
            Remote("mini-imagenet-cache-validation.pkl", 203, _ZENODO),
            Remote("mini-imagenet-cache-test.pkl", 254, _ZENODO),
        ),
    ),
    "quickdraw": Source(
        "Quick, Draw!: 345 things, drawings of 28x28 (Ha and Eck 2017); the first 1,000 of each",
        "Ha and Eck, A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477",
        (Layout((("numpy_bitmap", "quickdraw"),), drawings, cached=False),),
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
        "Ren et al., Meta-Learning for Semi-Supervised Few-Shot Classification, 2018, https://arxiv.org/abs/1803.00676",
        (
            Layout((("tiered-imagenet.tar", "tiered_imagenet.tar"),), png_pickles),
            Layout(_TIERED, png_pickles, "{train,val,test}_images_png.pkl + {train,val,test}_labels.pkl"),
            Layout((("ILSVRC2012_img_train", "tiered-imagenet"),), class_folders),
        ),
        (Remote("tiered-imagenet.tar", 12_000, "https://github.com/renmengye/few-shot-ssl-public"),),
    ),
    "vgg-flowers102": Source(
        "VGG Flowers: 102 flowers, 8,189 photos (Nilsback and Zisserman 2008)",
        "Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, 2008, "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        (Layout((("102flowers.tgz", "jpg"), ("imagelabels.mat",)), flowers),),
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
