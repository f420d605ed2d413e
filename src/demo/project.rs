//! What the sample's people work on. Each experiment but the first belongs to one of these projects.

/// How a metric moves over its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    /// A loss or an error: falls, and diverges in runs that fail.
    Falling,
    /// A score: rises towards 1; measured at step -1, before the training, too.
    Rising,
    /// A log-likelihood: negative, rises.
    Likelihood,
    /// A learning rate: halved three times.
    Rate,
    /// Per cent of something busy.
    Busy,
    /// Megabytes that slowly grow.
    Memory,
}

/// A metric: its key, its curve, and its share of a run's rows.
pub(super) type MetricKind = (&'static str, Curve, u64);

/// A project.
#[derive(Debug)]
pub(super) struct Project {
    /// Name of its experiments.
    pub(super) name: &'static str,
    /// Name of its registered model.
    pub(super) model: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// Who owns it.
    pub(super) team: &'static str,
    /// The library that its models are made with.
    pub(super) flavor: &'static str,
    /// The script that trains.
    pub(super) script: &'static str,
    /// Its metrics.
    pub(super) metrics: &'static [MetricKind],
    /// Its params, each with the values that were tried.
    pub(super) params: &'static [(&'static str, &'static [&'static str])],
    /// Whether it has traces.
    pub(super) traced: bool,
}

use Curve::{Busy, Falling, Likelihood, Memory, Rate, Rising};

const CPU: MetricKind = ("system/cpu_utilization_percentage", Busy, 2);
const RAM: MetricKind = ("system/system_memory_usage_megabytes", Memory, 2);
const GPU: MetricKind = ("system/gpu_0_utilization_percentage", Busy, 2);

/// What happens in the experiment that MLflow itself makes.
pub(super) const DEFAULT: Project = Project {
    name: "Default",
    model: "",
    about: "",
    team: "",
    flavor: "sklearn",
    script: "notebook.ipynb",
    metrics: &[("train_loss", Falling, 4), ("val_accuracy", Rising, 2)],
    params: &[("learning_rate", &["0.1", "0.01", "0.001"]), ("seed", &["1", "2", "3"])],
    traced: false,
};

/// The experiment that was given up and deleted.
pub(super) const SANDBOX: Project = Project { name: "sandbox", about: "Tries. Can go.", ..DEFAULT };

/// The projects, in the order in which their experiments are made.
pub(super) const PROJECTS: [Project; 6] = [
    Project {
        name: "churn-prediction",
        model: "churn-classifier",
        about: "# Churn\n\nWho leaves within 90 days?\n\n* data: `C:\\exports\\crm` and the warehouse\n* owner: *growth*",
        team: "growth",
        flavor: "xgboost",
        script: "jobs/train_churn.py",
        metrics: &[
            ("train_loss", Falling, 6),
            ("val_loss", Falling, 3),
            ("val_accuracy", Rising, 3),
            ("val_auc", Rising, 3),
            CPU,
            RAM,
        ],
        params: &[
            ("learning_rate", &["0.3", "0.1", "0.05", "1e-2"]),
            ("max_depth", &["4", "6", "8", "None"]),
            ("n_estimators", &["200", "400", "800"]),
            ("subsample", &["0.8", "1.0"]),
            ("early_stopping_rounds", &["", "25"]),
            ("objective", &["binary:logistic"]),
            ("data.path", &["s3://warehouse/churn/2025-06/", "C:\\exports\\crm\\churn.parquet"]),
            ("features", &["[\"tenure\", \"plan\", \"region\", \"tickets_90d\"]", "all"]),
        ],
        traced: false,
    },
    Project {
        name: "image-classifier",
        model: "defect-detector",
        about: "Defects on photographs of the line.",
        team: "vision",
        flavor: "pytorch",
        script: "train.py",
        metrics: &[
            ("train_loss", Falling, 10),
            ("val_loss", Falling, 2),
            ("val_accuracy", Rising, 2),
            ("learning_rate", Rate, 3),
            CPU,
            RAM,
            GPU,
        ],
        params: &[
            ("learning_rate", &["0.001", "3e-4", "0.0001"]),
            ("batch_size", &["32", "64", "128"]),
            ("epochs", &["30", "60", "90"]),
            ("optimizer", &["AdamW", "SGD"]),
            ("model.name", &["resnet50", "convnext_tiny", "vit_b_16"]),
            ("augment", &["RandAugment(n=2, m=9)\nMixup(0.2)", "none"]),
            ("resume_from", &["", "s3://checkpoints/defects/last.ckpt"]),
            ("seed", &["17", "42", "1234"]),
        ],
        traced: false,
    },
    Project {
        name: "demand-forecast",
        model: "demand-forecaster",
        about: "Demand of the next 28 days, per shop and article.",
        team: "supply",
        flavor: "lightgbm",
        script: "forecast/fit.py",
        metrics: &[
            ("train_rmse", Falling, 5),
            ("val_rmse", Falling, 3),
            ("val_mape", Falling, 3),
            ("val_log_likelihood", Likelihood, 2),
            CPU,
        ],
        params: &[
            ("learning_rate", &["0.05", "0.02"]),
            ("num_leaves", &["31", "63", "127"]),
            ("horizon_days", &["28"]),
            ("holidays", &["DE", "DE,AT,CH", "日本"]),
            ("loss", &["tweedie", "poisson", "l2"]),
        ],
        traced: false,
    },
    Project {
        name: "support-assistant",
        model: "support-assistant",
        about: "Answers customers' questions from the handbook.",
        team: "support",
        flavor: "langchain",
        script: "agent/evaluate.py",
        metrics: &[("val_correctness", Rising, 3), ("val_relevance", Rising, 3), ("latency_s", Falling, 2)],
        params: &[
            ("llm", &["gpt-4o-mini", "claude-sonnet", "llama-3.1-8b"]),
            ("temperature", &["0.0", "0.2", "0.7"]),
            ("retriever.k", &["4", "8"]),
            (
                "system_prompt",
                &["You answer in the customer's language.\nYou never guess.", "Be brief – höflich, 丁寧に 🙂"],
            ),
        ],
        traced: true,
    },
    Project {
        name: "Qualitätsprüfung – 品質検査",
        model: "Qualitätsprüfung",
        about: "Prüfung der Oberflächen; Grenzwerte aus \"Norm 7\" \\ 'Werk 2'.",
        team: "Werk 2",
        flavor: "sklearn",
        script: "prüfung/anlernen.py",
        metrics: &[("train_loss", Falling, 4), ("val_精度", Rising, 2), ("val_Ausschuß", Falling, 2)],
        params: &[
            ("learning_rate", &["0,01", "0.01"]),
            ("Schwelle", &["größer als 3 µm", "≥ 5 µm"]),
            ("kernel", &["rbf", "linear"]),
        ],
        traced: false,
    },
    Project {
        name: "fraud-detection",
        model: "fraud-scorer",
        about: "Scores payments before they are booked.",
        team: "risk",
        flavor: "sklearn",
        script: "fraud/train.py",
        metrics: &[
            ("train_loss", Falling, 5),
            ("val_precision", Rising, 2),
            ("val_recall", Rising, 2),
            ("val_log_likelihood", Likelihood, 2),
            RAM,
        ],
        params: &[
            ("learning_rate", &["0.01", "0.005"]),
            ("class_weight", &["balanced", "{0: 1, 1: 400}"]),
            ("hidden_layers", &["[64, 32]", "[128, 64, 32]"]),
            ("dropout", &["0.1", "0.3"]),
        ],
        traced: false,
    },
];
