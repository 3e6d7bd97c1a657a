//! Runs third-party programs and the exporter, and sends them HTTP requests.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start programs and poll until they reach a state"
)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The folder of the built programs.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_nvml-exporter")).parent().expect("a folder").to_owned()
}

/// Path of a tool that `tests/run` installs into `.tools`.
pub(crate) fn tool_path(path: &str) -> String {
    root().join(".tools").join(path).display().to_string()
}

/// Runs a program until it exits, with an empty environment except PATH and TMPDIR. A missing program fails the test.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; run the tests with tests/run, which installs it")
        });
    // If the program exits without reading its input, the exit code is checked instead.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Standard output of a program, which has to succeed.
pub(crate) fn stdout_of(program: &str, args: &[&str], input: &str) -> String {
    let output = run(program, args, input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", stderr_of(&output));
    text
}

/// Standard error of a program.
pub(crate) fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sufficient on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// An HTTP server. A program is killed on drop.
pub(crate) struct Server {
    program: Option<(Child, TempDir)>,
    address: String,
}

impl Server {
    /// Starts the exporter on a free port.
    pub(crate) fn start_exporter(args: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let address = free_address();
        let program = env!("CARGO_BIN_EXE_nvml-exporter");
        let child = start(program, &[&["--address", &address], args].concat(), folder.path());
        Self { program: Some((child, folder)), address }
    }

    /// Starts a Prometheus that scrapes one target every 300 ms.
    pub(crate) fn start_prometheus(program: &str, target: &str) -> Self {
        Self::start_prometheus_with_rules(program, &[target], &serde_json::json!([]))
    }

    /// Starts a Prometheus that scrapes targets and evaluates rule groups every 300 ms.
    pub(crate) fn start_prometheus_with_rules(
        program: &str,
        targets: &[&str],
        groups: &Value,
    ) -> Self {
        let job = serde_json::json!({"job_name": "gpu", "static_configs": [{"targets": targets}]});
        Self::start_prometheus_with_jobs(program, &[job], groups)
    }

    /// Starts a Prometheus with these scrape jobs that evaluates rule groups, both every 300 ms.
    pub(crate) fn start_prometheus_with_jobs(
        program: &str,
        jobs: &[Value],
        groups: &Value,
    ) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = folder.path().join("prometheus.yml");
        let interval = "300ms";
        let rules = folder.path().join("rules.yml");
        // JSON is YAML.
        std::fs::write(&rules, serde_json::json!({"groups": groups}).to_string()).unwrap();
        let text = serde_json::json!({
            "global": {
                "scrape_interval": interval, "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [rules],
            "scrape_configs": jobs,
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let address = free_address();
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let child = start(program, &arguments, folder.path());
        Self { program: Some((child, folder)), address }
    }

    /// Serves the same exposition for every request, until the test process exits.
    pub(crate) fn serve_text(exposition: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Requests are smaller and arrive in one segment.
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(exposition.as_bytes());
            }
        });
        Self { program: None, address }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Polls `path` until the body satisfies `wanted`. Returns the body.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_until(path, |body| if wanted(body) { Ok(()) } else { Err(body.to_owned()) })
    }

    /// Polls `path` until `check` accepts the body. Returns the body; on timeout, fails with the error of `check`.
    pub(crate) fn wait_until(
        &self,
        path: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let body = self.get(path).unwrap_or_else(|e| e.to_string());
            let Err(error) = check(&body) else { return body };
            assert!(Instant::now() < deadline, "{path} within {TIMEOUT:?}: {error}");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Response body of a Prometheus query.
    pub(crate) fn query(&self, query: &str) -> String {
        self.get(&format!("/api/v1/query?query={}", url_encode(query))).unwrap()
    }

    /// Response body of a Prometheus series request.
    pub(crate) fn series(&self, selector: &str) -> String {
        self.get(&format!("/api/v1/series?match[]={}", url_encode(selector))).unwrap()
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (_, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        Ok(body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.program {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A scrape job with the labels that the Prometheus operator adds to a target.
pub(crate) fn kubernetes_job(name: &str, target: &str, honor_labels: bool) -> Value {
    serde_json::json!({
        "job_name": name,
        "honor_labels": honor_labels,
        "static_configs": [{
            "targets": [target],
            "labels": {
                "namespace": "monitoring", "pod": format!("{name}-x7k2p"), "container": name,
                "service": name, "endpoint": "metrics", "node": "node-1",
            },
        }],
    })
}

/// Percent-encodes every byte, for a URL query.
pub(crate) fn url_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    encoded
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn start(program: &str, args: &[&str], folder: &Path) -> Child {
    Command::new(program)
        .args(args)
        .env_clear()
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; run the tests with tests/run, which installs it")
        })
}
