//! Stages, and clients of their servers.

use std::{
    ffi::{CString, c_char, c_int, c_uint},
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use hyper::http::uri::PathAndQuery;
use libloading::Library;
use nvml_wrapper::Nvml;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Request, Status, transport::Endpoint};
use tonic_prost::ProstCodec;

/// How long anything may take: only against tests that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

type StageFn = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, c_uint) -> c_int;

/// A stage that a library runs from.
pub(crate) struct Stage {
    dir: TempDir,
    /// Its client.
    pub(crate) nvml: Nvml,
}

impl Stage {
    /// Of a built-in, or of a file's path.
    pub(crate) fn of(scenario: &str) -> Self {
        Self::set(TempDir::new().unwrap(), scenario)
    }

    /// Of two T4 and these tables, which [`Stage::play`] can replace.
    pub(crate) fn playing(tables: &str) -> Self {
        let dir = TempDir::new().unwrap();
        write(dir.path(), tables);
        let script = dir.path().join("test.toml");
        Self::set(dir, script.to_str().unwrap())
    }

    fn set(dir: TempDir, scenario: &str) -> Self {
        // Cargo builds no cdylib for a test of its own accord.
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(Path::parent).unwrap().join("libmock_nvml.so");
        assert!(built.is_file(), "no {}: run cargo build --workspace first", built.display());
        // SAFETY: loading the mock runs no code of its own.
        let library = unsafe { Library::new(built) }.unwrap();
        // SAFETY: that is its signature.
        let stage = unsafe { library.get::<StageFn>(b"mockNvmlStage\0") }.unwrap();
        let scenario = CString::new(scenario).unwrap();
        let home = CString::new(dir.path().to_str().unwrap()).unwrap();
        let mut error = vec![0_u8; 1_024];
        // SAFETY: two strings, and a buffer of the length that is said.
        let code =
            unsafe { stage(scenario.as_ptr(), home.as_ptr(), error.as_mut_ptr().cast(), 1_024) };
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&error));
        let image = dir.path().join("libnvidia-ml.so.1");
        let nvml = Nvml::builder().lib_path(image.as_os_str()).init().unwrap();
        Self { dir, nvml }
    }

    /// Goes on with other tables.
    pub(crate) fn play(&self, tables: &str) {
        write(self.dir.path(), tables);
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn uuid(&self, gpu: u32) -> String {
        self.nvml.device_by_index(gpu).unwrap().uuid().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("pod-resources/kubelet.sock")
    }

    /// Calls the kubelet.
    pub(crate) fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let uri = format!("unix://{}", self.socket().display());
        let path = PathAndQuery::try_from(format!("/v1.PodResourcesLister/{method}")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let channel = Endpoint::from_shared(uri).unwrap().timeout(PATIENCE).connect_lazy();
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let codec = ProstCodec::<Q, A>::default();
            Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
        })
    }

    /// Where the API server listens, as the kubeconfig says it.
    pub(crate) fn port(&self) -> u16 {
        let text = fs::read_to_string(self.path("kubeconfig")).unwrap();
        let (_, after) = text.split_once("server: http://127.0.0.1:").unwrap();
        after.lines().next().unwrap().parse().unwrap()
    }

    /// Asks the API server.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap()
    }

    /// Tells the API server something.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}", body.len());
        self.ask(&format!("{head}\r\n\r\n{body}")).unwrap()
    }

    pub(crate) fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: mock\r\n\r\n"))
    }

    /// To a client of version 1.0 a body goes as it is, to the end of the connection.
    fn ask(&self, request: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if body.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, body })
    }

    /// The pods that the API server lists.
    pub(crate) fn pods(&self) -> Vec<Value> {
        self.get("/api/v1/pods").json()["items"].as_array().unwrap().clone()
    }
}

fn write(dir: &Path, tables: &str) {
    let text = tables.replacen("[GPUS]", "[[gpu]]\nmodel = \"T4\"\ncount = 2", 1);
    let fresh = dir.join("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, dir.join("test.toml")).unwrap();
}

/// An answer of the API server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: BufReader<TcpStream>,
}

impl Answer {
    /// All of it.
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The next line, none at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.body.read_line(&mut line).expect("a line in time");
        (read > 0).then_some(line)
    }

    /// The next event of a watch, none at its end.
    pub(crate) fn event(&mut self) -> Option<(String, Value)> {
        let mut event: Value = serde_json::from_str(&self.line()?).unwrap();
        let kind = event["type"].as_str().unwrap().to_owned();
        Some((kind, event["object"].take()))
    }

    /// The next event of a watch: what has happened to which pod.
    pub(crate) fn news(&mut self) -> String {
        let (kind, object) = self.event().expect("another event");
        format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}

/// Tries again and again, until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let (_open, never) = mpsc::channel::<()>();
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
    panic!("in 10 s it did not come true that {what}");
}
