//! Other people's programs, and what they make of our files.

#![expect(
    clippy::disallowed_methods,
    reason = "a test starts programs and waits for the world to reach a state"
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

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The folder that the programs are built into.
pub(crate) fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_nvml-exporter")).parent().expect("a folder").to_owned()
}

/// Where `tests/run` puts what it brings.
pub(crate) fn brought(path: &str) -> String {
    root().join(".tools").join(path).display().to_string()
}

/// Runs a program to its end with an environment of its own; a missing one is a failure, never a
/// skipped test.
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
            panic!("{program}: {e}; run the tests with tests/run, which brings it")
        });
    // A program that ends without reading all of it says so by its exit code.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a program that succeeds prints.
pub(crate) fn said(program: &str, args: &[&str], input: &str) -> String {
    let output = run(program, args, input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", errors(&output));
    text
}

/// What a program wrote to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Long enough for a loaded machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that will change.
const PAUSE: Duration = Duration::from_millis(50);

/// Something that serves HTTP; a program is killed when it is dropped.
pub(crate) struct Server {
    program: Option<(Child, TempDir)>,
    address: String,
}

impl Server {
    /// The exporter, on a free port.
    pub(crate) fn exporter(args: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let address = free_address();
        let program = env!("CARGO_BIN_EXE_nvml-exporter");
        let child = start(program, &[&["--address", &address], args].concat(), folder.path());
        Self { program: Some((child, folder)), address }
    }

    /// A Prometheus that scrapes one target a few times a second.
    pub(crate) fn prometheus(program: &str, target: &str) -> Self {
        Self::prometheus_with(program, &[target], &serde_json::json!([]))
    }

    /// One that scrapes several, and evaluates groups of rules as often.
    pub(crate) fn prometheus_with(program: &str, targets: &[&str], groups: &Value) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = folder.path().join("prometheus.yml");
        let often = "300ms";
        let rules = folder.path().join("rules.yml");
        // JSON is YAML.
        std::fs::write(&rules, serde_json::json!({"groups": groups}).to_string()).unwrap();
        let text = serde_json::json!({
            "global": {
                "scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often,
            },
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "gpu", "static_configs": [{"targets": targets}]}],
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

    /// One page, whatever is asked for, for as long as the test runs.
    pub(crate) fn page(page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A request is smaller than this and comes at once.
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(page.as_bytes());
            }
        });
        Self { program: None, address }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks for `path` until the body satisfies `wanted`, and returns it.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_until(path, |body| if wanted(body) { Ok(()) } else { Err(body.to_owned()) })
    }

    /// Asks for `path` until the body is as it should be, and returns it; `judge` says what is not.
    pub(crate) fn wait_until(
        &self,
        path: &str,
        judge: impl Fn(&str) -> Result<(), String>,
    ) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = self.get(path).unwrap_or_else(|e| e.to_string());
            let Err(lacks) = judge(&body) else { return body };
            assert!(Instant::now() < deadline, "{path} in {PATIENCE:?}: {lacks}");
            thread::sleep(PAUSE);
        }
    }

    /// Prometheus's answer to a query.
    pub(crate) fn query(&self, query: &str) -> String {
        self.get(&format!("/api/v1/query?query={}", encoded(query))).unwrap()
    }

    /// The series that Prometheus has for a selector.
    pub(crate) fn series(&self, selector: &str) -> String {
        self.get(&format!("/api/v1/series?match[]={}", encoded(selector))).unwrap()
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
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

/// For a URL's query, every byte escaped.
pub(crate) fn encoded(text: &str) -> String {
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
        .unwrap_or_else(|e| panic!("{program}: {e}; run the tests with tests/run, which brings it"))
}
