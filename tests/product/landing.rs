//! The web page, as it is served.

use crate::exporter::Exporter;
use crate::node_api::wait_for_node;

#[test]
fn page_shows_why_there_is_no_driver() {
    let exporter =
        Exporter::start(&["--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let node = wait_for_node(&exporter, "a reason", |node| node["ready"] == false);
    assert_eq!(node["driver"]["reason"], "library_not_found");
    let page = exporter.get("/").text();
    assert!(page.contains("Not ready: ") && page.contains("/nowhere/libnvidia-ml.so.1"), "{page}");
}

#[test]
fn landing_page_can_be_disabled() {
    let exporter = Exporter::start(&["--mock=idle-t4", "--no-landing-page"]);
    for path in ["/", "/api/v1/node"] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
    assert_eq!(exporter.get("/healthz").status, 200);
}
