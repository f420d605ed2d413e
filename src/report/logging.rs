//! Logs to stderr, for whoever asks with `-v`.

use tracing::Level;

/// Starts logging at the level that many `-v` ask for; without any nothing is logged. Only mlops' own events: the
/// drivers' would show values of rows.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => Level::INFO,
        _ => Level::DEBUG,
    };
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let _ = tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false))
        .with(Targets::new().with_target("mlops", level))
        .try_init();
}
