# What CI runs, by name.

# All tests: units, simulation, real processes, house rules.
test:
    cargo test --release --no-fail-fast

# Servers that others wrote, reloaded under load; as root. It installs what is missing.
servers:
    integration/servers/run

# What clients lose while workers are replaced 20 times, as a table; four minutes, in full as root.
matrix:
    integration/matrix/run

# The manual and the completions that are shipped, and the snapshots of texts, made anew.
generate:
    GENERATE=1 INSTA_UPDATE=always cargo test --release -- the_manual_and_the_completions help_of

# Format and lints; no warning is let through.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- --deny warnings

# The main job, with an example worker.
demo:
    cargo run --release -- run -n 4 -p 8000 -- node examples/http.js

# Side by side with others that keep workers behind a port; prints tables in Markdown.
bench:
    cargo bench

# Long versions of what the tests run shortly.
long:
    RELOADS=20 KILL_STORM_SECONDS=10 SIMULATION_SEEDS=100000 cargo test --release
