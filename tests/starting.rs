//! Addresses: which are taken, which are refused, and what is said about it.

use std::net::{TcpListener, UdpSocket};

use crate::support::Setup;

/// Where a node listens unless told otherwise.
const DEFAULT_PORT: u16 = 11452;

#[tokio::test(flavor = "multi_thread")]
async fn the_very_first_command_works_and_says_where_the_endpoint_is() {
    let node = Setup::new("node").start().await;
    assert_eq!(node.ready()["ready"], true);
    assert_eq!(node.ready()["name"], "node");
    assert_eq!(node.models().await, Vec::<String>::new());
    let status = node.json(&["status"]).await;
    for field in ["node_id", "name", "mode", "mesh", "peers", "capabilities", "api", "listen", "embedder"] {
        assert!(status.get(field).is_some(), "no `{field}` in {status}");
    }
    assert_eq!(status["mode"], "participant");
    // The data folder may be named before or after the command.
    let folder = node.data_folder();
    let after = Setup::new("elsewhere").atmo(&["status", "--json", "--data-dir", folder.to_str().expect("plain text")]).await;
    assert_eq!(after.json()["node_id"], status["node_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_for_other_machines_is_refused() {
    let refusal = Setup::new("node").argument("--api", "0.0.0.0:0").up_and_down_again().await;
    refusal.refused_with(&["loopback"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_api_port_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let refusal = Setup::new("node").argument("--api", &address).up_and_down_again().await;
    assert!(refusal.one_clear_line().contains(&address), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_listen_port_that_was_asked_for_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port();
    let refusal = Setup::new("node").argument("--listen", &format!("/ip4/127.0.0.1/tcp/{port}")).up_and_down_again().await;
    assert!(refusal.one_clear_line().contains(&port.to_string()), "{refusal}");
}

/// libp2p shares TCP ports, so the operating system alone would let two nodes have one.
#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_port_of_another_node_is_taken() {
    let node = Setup::new("first").start().await;
    let tcp = node.listen_addresses().into_iter().find(|address| address.contains("/tcp/")).expect("it listens on TCP");
    let tcp = tcp.split("/p2p/").next().expect("there is a first part");
    let refusal = Setup::new("second").argument("--listen", tcp).up_and_down_again().await;
    assert!(refusal.one_clear_line().contains(tcp), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_default_port_is_replaced_by_a_free_one_that_is_kept() {
    // Where something else holds the port already, that does as well.
    let _tcp = TcpListener::bind(("0.0.0.0", DEFAULT_PORT)).ok();
    let _udp = UdpSocket::bind(("0.0.0.0", DEFAULT_PORT)).ok();
    let node = Setup::new("node").listens_by_default().start().await;
    let first = ports(&node.json(&["status"]).await);
    assert!(!first.is_empty() && !first.contains(&DEFAULT_PORT), "{first:?}");
    let node = node.restart().await;
    assert_eq!(ports(&node.json(&["status"]).await), first);
}

/// The ports in `status`, each once.
fn ports(status: &serde_json::Value) -> Vec<u16> {
    let addresses = status["listen"].as_array().expect("`listen` is an array");
    let mut ports: Vec<u16> = addresses.iter().filter_map(|address| address.as_str()?.split('/').nth(4)?.parse().ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_exit_code_two() {
    let setup = Setup::new("node");
    assert_eq!(setup.atmo(&["invent"]).await.code, Some(2));
    assert_eq!(setup.atmo(&["join"]).await.code, Some(2));
    let wrong_config =
        setup.clone().config("[[backends]]\nkind = \"openai\"\nurl = \"http://127.0.0.1:1/v1\"\ncolour = \"red\"\n");
    wrong_config.up_and_down_again().await.refused_with(&["colour"]);
}
