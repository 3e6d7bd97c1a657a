//! Mock environments, and clients of their servers.

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

/// Timeout of all waits, so that no test hangs.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

type SetUpFn = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, c_uint) -> c_int;

/// A mock environment from which the library is loaded.
pub(crate) struct MockEnv {
    dir: TempDir,
    pub(crate) nvml: Nvml,
}

impl MockEnv {
    /// For the name of a built-in scenario or a path.
    pub(crate) fn built_in(scenario: &str) -> Self {
        Self::set_up(TempDir::new().unwrap(), scenario)
    }

    /// For these tables, with `[GPUS]` replaced by two T4; [`MockEnv::play`] can replace them.
    pub(crate) fn with_tables(tables: &str) -> Self {
        let dir = TempDir::new().unwrap();
        write(dir.path(), tables);
        let path = dir.path().join("test.toml");
        Self::set_up(dir, path.to_str().unwrap())
    }

    fn set_up(dir: TempDir, scenario: &str) -> Self {
        // Cargo does not build a cdylib for tests by itself.
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(Path::parent).unwrap().join("libmock_nvml.so");
        assert!(built.is_file(), "no {}: run cargo build --workspace first", built.display());
        // SAFETY: loading the mock runs no code of its own.
        let library = unsafe { Library::new(built) }.unwrap();
        // SAFETY: this is its signature.
        let set_up = unsafe { library.get::<SetUpFn>(b"mockNvmlEnvironment\0") }.unwrap();
        let scenario = CString::new(scenario).unwrap();
        let path = CString::new(dir.path().to_str().unwrap()).unwrap();
        let mut error = vec![0_u8; 1_024];
        // SAFETY: two strings, and a buffer of the length passed.
        let code =
            unsafe { set_up(scenario.as_ptr(), path.as_ptr(), error.as_mut_ptr().cast(), 1_024) };
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&error));
        let image = dir.path().join("libnvidia-ml.so.1");
        let nvml = Nvml::builder().lib_path(image.as_os_str()).init().unwrap();
        Self { dir, nvml }
    }

    /// Replaces the tables of the scenario.
    pub(crate) fn write_tables(&self, tables: &str) {
        write(self.dir.path(), tables);
    }

    /// A path in the directory of the mock environment.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn uuid(&self, gpu: u32) -> String {
        self.nvml.device_by_index(gpu).unwrap().uuid().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("pod-resources/kubelet.sock")
    }

    /// Calls a method of the kubelet's `PodResourcesLister`.
    pub(crate) fn call<Req, Res>(&self, method: &str, request: Req) -> Result<Res, Status>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        let uri = format!("unix://{}", self.socket().display());
        let path = PathAndQuery::try_from(format!("/v1.PodResourcesLister/{method}")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let channel = Endpoint::from_shared(uri).unwrap().timeout(TIMEOUT).connect_lazy();
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let codec = ProstCodec::<Req, Res>::default();
            Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
        })
    }

    /// The port of the API server, read from the kubeconfig.
    pub(crate) fn port(&self) -> u16 {
        self.port_in("kubeconfig")
    }

    /// The port in the URL in a file of the mock environment.
    fn port_in(&self, file: &str) -> u16 {
        let text = fs::read_to_string(self.path(file)).unwrap();
        let (_, after) = text.split_once("http://127.0.0.1:").unwrap();
        after.lines().next().unwrap().parse().unwrap()
    }

    /// Sends a GET request to the kubelet.
    pub(crate) fn get_from_kubelet(&self, path: &str) -> std::io::Result<HttpResponse> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: mock\r\n\r\n");
        send(self.port_in("kubelet-url"), &request)
    }

    /// Sends a GET request to the API server.
    pub(crate) fn get(&self, path: &str) -> HttpResponse {
        self.try_get(path).unwrap()
    }

    /// Sends a POST request to the API server.
    pub(crate) fn post(&self, path: &str, body: &str) -> HttpResponse {
        let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}", body.len());
        send(self.port(), &format!("{head}\r\n\r\n{body}")).unwrap()
    }

    pub(crate) fn try_get(&self, path: &str) -> std::io::Result<HttpResponse> {
        send(self.port(), &format!("GET {path} HTTP/1.0\r\nHost: mock\r\n\r\n"))
    }

    /// The pods that the API server lists.
    pub(crate) fn pods(&self) -> Vec<Value> {
        self.get("/api/v1/pods").json()["items"].as_array().unwrap().clone()
    }
}

/// Sends an HTTP/1.0 request, so that the body is not chunked and ends with the connection.
fn send(port: u16, request: &str) -> std::io::Result<HttpResponse> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut body = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if body.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(HttpResponse { status, head, body })
}

fn write(dir: &Path, tables: &str) {
    let text = tables.replacen("[GPUS]", "[[gpu]]\nmodel = \"T4\"\ncount = 2", 1);
    let draft = dir.join("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, dir.join("test.toml")).unwrap();
}

/// A response of the API server.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: BufReader<TcpStream>,
}

impl HttpResponse {
    /// The whole body.
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The next line; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.body.read_line(&mut line).expect("a line within the timeout");
        (read > 0).then_some(line)
    }

    /// Type and object of the next event of a watch; `None` at its end.
    pub(crate) fn event(&mut self) -> Option<(String, Value)> {
        let mut event: Value = serde_json::from_str(&self.line()?).unwrap();
        let kind = event["type"].as_str().unwrap().to_owned();
        Some((kind, event["object"].take()))
    }

    /// Type of the next event of a watch and name of its object.
    pub(crate) fn event_summary(&mut self) -> String {
        let (kind, object) = self.event().expect("another event");
        format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}

/// Waits up to 10 s until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let (_open, never) = mpsc::channel::<()>();
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
    panic!("not within 10 s: {what}");
}
