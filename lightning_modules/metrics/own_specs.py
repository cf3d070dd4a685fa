"""The metrics of this package, in the order of reports. Imports no torch."""

from __future__ import annotations

from lightning_modules.metrics.spec_types import CHOSEN, Direction, MetricSpec, Occasion, Quantity


def _single(name: str, title: str, direction: Direction, *limits: float | None) -> tuple[Quantity, ...]:
    return (Quantity(name, title, direction, (limits[0], limits[1]) if limits else (0.0, None)),)


def _path_length(name: str, quantity: str, of: str, ability: str) -> MetricSpec:
    return MetricSpec(
        name,
        f"perceptual path length at {of} (Karras et al. 2019): lower is smoother",
        ("generation",),
        _single(quantity, f"PPL, {quantity[4]} {quantity[5:]}", "min"),
        "vgg16",
        weights=("vgg16_lpips",),
        abilities=(ability,),
    )


_BOTH: tuple[Occasion, ...] = ("training", "evaluate")

#: The metrics of this package, in the order of reports.
OWN = (
    MetricSpec(
        "fid",
        "Fréchet distance between features of made and real images (Heusel et al. 2017)",
        ("generation", "translation", "reconstruction"),
        _single("fid", "FID", "min"),
        CHOSEN,
        default=_BOTH,
        least=2,
    ),
    MetricSpec(
        "kid",
        "squared maximum mean discrepancy of features (Bińkowski et al. 2018)",
        ("generation", "translation"),
        (
            Quantity("kid", "KID", "min", (None, None)),
            Quantity("kid_std", "KID, standard deviation", None, spread_of="kid"),
        ),
        CHOSEN,
        default=_BOTH,
        least=4,
    ),
    MetricSpec(
        "is",
        "Inception Score: how sure and how diverse a classifier is (Salimans et al. 2016)",
        ("generation",),
        (
            Quantity("is", "Inception Score", "max", (1.0, None)),
            Quantity("is_std", "Inception Score, standard deviation", None, spread_of="is"),
        ),
        CHOSEN,
    ),
    MetricSpec(
        "prdc",
        "precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)",
        ("generation", "translation"),
        (
            Quantity("precision", "Precision", "max", (0.0, 1.0), chart="precision"),
            Quantity("recall", "Recall", "max", (0.0, 1.0), chart="precision"),
            Quantity("density", "Density", "max", chart="density"),
            Quantity("coverage", "Coverage", "max", (0.0, 1.0), chart="density"),
        ),
        CHOSEN,
        default=("evaluate",),
        least=6,
    ),
    MetricSpec(
        "pr",
        "precision and recall with the third neighbour, as StyleGAN's authors report them (pr50k3)",
        ("generation", "translation"),
        (
            Quantity("precision_k3", "Precision, k = 3", "max", (0.0, 1.0), chart="precision_k3"),
            Quantity("recall_k3", "Recall, k = 3", "max", (0.0, 1.0), chart="precision_k3"),
        ),
        CHOSEN,
        least=4,
    ),
    _path_length("ppl", "ppl_wend", "the ends of paths in W, as reported since StyleGAN2", "w_space"),
    _path_length("ppl_wfull", "ppl_wfull", "paths in W", "w_space"),
    _path_length("ppl_zend", "ppl_zend", "the ends of paths in Z", "on_path"),
    _path_length("ppl_zfull", "ppl_zfull", "paths in Z", "on_path"),
    MetricSpec(
        "diversity",
        "LPIPS between samples of random and of close latents, and between held-out pictures: a collapse shows",
        ("generation",),
        (
            Quantity("diversity", "Diversity: LPIPS of random samples", None, chart="diversity"),
            Quantity("diversity_close", "LPIPS of samples of close latents", None, chart="diversity"),
            Quantity("diversity_real", "LPIPS of held-out pictures", None, chart="diversity"),
        ),
        "vgg16",
        weights=("vgg16_lpips",),
        abilities=("on_path",),
    ),
    MetricSpec(
        "eqt",
        "EQ-T in dB: how well the image of a moved input is the moved image (Karras et al. 2021, E.1)",
        ("generation",),
        _single("eqt", "EQ-T (dB)", "max", None, None),
        abilities=("transformed",),
    ),
    MetricSpec(
        "eqr",
        "EQ-R in dB: how well the image of a turned input is the turned image (Karras et al. 2021, E.3)",
        ("generation",),
        _single("eqr", "EQ-R (dB)", "max", None, None),
        abilities=("transformed",),
    ),
    MetricSpec(
        "lpips",
        "perceptual distance of content and result (Zhang et al. 2018): lower keeps more",
        ("stylization", "translation", "reconstruction"),
        _single("lpips", "LPIPS", "min"),
        "vgg16",
        weights=("vgg16_lpips",),
        default=_BOTH,
    ),
    MetricSpec(
        "ssim",
        "structural similarity of content and result on the luminance (Wang et al. 2004): higher keeps more",
        ("stylization", "translation", "reconstruction"),
        _single("ssim", "SSIM", "max", -1.0, 1.0),
        default=("evaluate",),
    ),
    MetricSpec(
        "psnr",
        "peak signal-to-noise ratio of a picture and its reconstruction, in dB: a mean over pictures",
        ("reconstruction",),
        _single("psnr", "PSNR (dB)", "max", 0.0, 100.0),
        default=_BOTH,
    ),
    MetricSpec(
        "truth_lpips",
        "perceptual distance of a translation and what it is to become, where that is known; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_lpips", "LPIPS to the truth", "min", chart="truth_lpips"),
            Quantity("copied_lpips", "LPIPS to the truth, of a copy", None, chart="truth_lpips"),
        ),
        "vgg16",
        weights=("vgg16_lpips",),
    ),
    MetricSpec(
        "truth_ssim",
        "structural similarity of a translation and what it is to become, where that is known; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_ssim", "SSIM to the truth", "max", (-1.0, 1.0), chart="truth_ssim"),
            Quantity("copied_ssim", "SSIM to the truth, of a copy", None, (-1.0, 1.0), chart="truth_ssim"),
        ),
    ),
    MetricSpec(
        "truth_psnr",
        "peak signal-to-noise ratio of a translation and what it is to become, in dB; and of a plain copy",
        ("translation",),
        (
            Quantity("truth_psnr", "PSNR to the truth (dB)", "max", (0.0, 100.0), chart="truth_psnr"),
            Quantity("copied_psnr", "PSNR to the truth, of a copy (dB)", None, (0.0, 100.0), chart="truth_psnr"),
        ),
    ),
    MetricSpec(
        "content_cosine",
        "cosine similarity of VGG19's features of content and result: higher keeps more",
        ("stylization",),
        _single("content_cosine", "Content cosine", "max", -1.0, 1.0),
        weights=("vgg19_normalized",),
        default=("evaluate",),
    ),
    MetricSpec(
        "gram_distance",
        "distance of result's and style's Gram matrices: lower is nearer to the style",
        ("stylization",),
        _single("gram_distance", "Gram distance", "min"),
        weights=("vgg19_normalized",),
        default=_BOTH,
    ),
    MetricSpec(
        "statistics_distance",
        "distance of result's and style's feature statistics: lower is nearer to the style",
        ("stylization",),
        _single("statistics_distance", "Statistics distance", "min"),
        weights=("vgg19_normalized",),
        default=("evaluate",),
    ),
    MetricSpec(
        "artfid",
        "(1 + LPIPS) (1 + FID to the styles): content and style in one (Wright and Ommer 2022)",
        ("stylization",),
        _single("artfid", "ArtFID", "min", 1.0, None),
        CHOSEN,
        weights=("vgg16_lpips",),
    ),
    MetricSpec(
        "mig",
        "mutual information gap of codes and known factors: whether each has one latent of its own (Chen et al. 2018)",
        ("generation",),
        _single("mig", "Mutual information gap", "max", 0.0, 1.0),
        abilities=("codes",),
        factors=True,
    ),
    MetricSpec(
        "retrieval",
        "how often the code of a picture's quarter finds the opposite one among all pictures'; and VGG19's statistics",
        ("embedding",),
        (
            Quantity("retrieval", "Retrieval of the same picture", "max", (0.0, 1.0), chart="retrieval"),
            Quantity("retrieval_mrr", "Retrieval, mean 1 / rank", "max", (0.0, 1.0), chart="retrieval_mrr"),
            Quantity("raw_retrieval", "Retrieval by VGG19's statistics", None, (0.0, 1.0), chart="retrieval"),
            Quantity("raw_retrieval_mrr", "Mean 1 / rank by VGG19's", None, (0.0, 1.0), chart="retrieval_mrr"),
        ),
        weights=("vgg19_normalized",),
        default=_BOTH,
        abilities=("codes",),
    ),
    MetricSpec(
        "neighbours",
        "how often most of the five nearest pictures by code are of a picture's class; and by VGG19's statistics",
        ("embedding",),
        (
            Quantity("neighbours", "Class of the neighbours", "max", (0.0, 1.0), chart="neighbours"),
            Quantity("raw_neighbours", "Class, by VGG19's statistics", None, (0.0, 1.0), chart="neighbours"),
        ),
        weights=("vgg19_normalized",),
        abilities=("codes",),
    ),
)
