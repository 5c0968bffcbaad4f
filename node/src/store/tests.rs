use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Where the child of [`a_killed_writer_leaves_a_readable_folder`] writes.
const CRASH_DIR: &str = "ATMO_TEST_CRASH_DIR";

fn mesh(number: u8) -> MeshId {
    MeshId::from_bytes([number; 32])
}

fn membership(number: u8) -> StoredMesh {
    StoredMesh {
        mesh: mesh(number),
        name: Some("home".to_owned()),
        root: Seed::random().ok(),
        chain: vec![number; 700],
        shared: false,
    }
}

fn peer(number: u8, seen_s: u64) -> KnownPeer {
    KnownPeer { node: NodeId::from_bytes([number; 32]), addresses: vec![format!("/ip4/10.0.0.{number}/tcp/1")], seen_s }
}

#[test]
fn a_folder_keeps_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let identity = {
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.membership().unwrap(), None);
        store.save_membership(&membership(1)).unwrap();
        store.save_invitations(mesh(1), vec![1, 2]).unwrap();
        store.save_ports(Some(Ports { udp: 7, tcp: 8 })).unwrap();
        store.save_listen(vec!["/ip4/1.2.3.4/tcp/8".to_owned()]).unwrap();
        store.node_id()
    };
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.node_id(), identity);
    assert_eq!(store.membership().unwrap().unwrap().chain, vec![1; 700]);
    assert_eq!(store.invitations(&mesh(1)).unwrap(), Some(vec![1, 2]));
    assert_eq!(store.invitations(&mesh(2)).unwrap(), None, "another mesh's invitations are none");
    let ports = Some(Ports { udp: 7, tcp: 8 });
    let state = State { incarnation: 0, ports, root_exported: None, listen: vec!["/ip4/1.2.3.4/tcp/8".to_owned()] };
    assert_eq!(store.state().unwrap(), state);
}

#[test]
fn leaving_keeps_the_identity_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save_membership(&membership(1)).unwrap();
    store.save_invitations(mesh(1), vec![1]).unwrap();
    store.remember(mesh(1), vec![peer(1, 1)]).unwrap();
    store.forget_mesh().unwrap();
    store.forget_mesh().unwrap();
    assert_eq!(store.membership().unwrap(), None);
    assert_eq!(store.invitations(&mesh(1)).unwrap(), None);
    assert_eq!(store.address_book(&mesh(1)).unwrap(), []);
    assert_eq!(peek(dir.path()).unwrap(), (Some(store.node_id()), None));
}

#[test]
fn an_incarnation_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.raise_incarnation(2_000).unwrap(), 2_000);
    assert_eq!(store.raise_incarnation(1_500).unwrap(), 2_000);
    store.save_ports(None).unwrap();
    assert_eq!(store.state().unwrap().incarnation, 2_000);
}

#[test]
fn the_address_book_forgets_the_longest_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.remember(mesh(1), (0..ADDRESS_BOOK_MAX as u8).map(|number| peer(number, u64::from(number))).collect()).unwrap();
    store.remember(mesh(1), vec![peer(200, 1_000), peer(3, 2_000)]).unwrap();
    let book = store.address_book(&mesh(1)).unwrap();
    assert_eq!(book.len(), ADDRESS_BOOK_MAX);
    assert_eq!((book[0].node, book[1].node), (peer(3, 0).node, peer(200, 0).node));
    assert!(book.iter().all(|known| known.node != peer(0, 0).node), "the longest unseen went");
    assert_eq!(store.address_book(&mesh(2)).unwrap(), []);
}

#[test]
fn only_the_owner_can_read_the_folder() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let store = Store::open(&dir).unwrap();
    store.save_membership(&membership(1)).unwrap();
    for path in [dir.clone(), dir.join("node.key"), dir.join("mesh.json"), dir.join("lock")] {
        assert_eq!(platform::mode_open_to_others(&path).unwrap(), 0, "{}", path.display());
    }
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(holder_of(dir.path()), Some(Some(std::process::id())));
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { holder: Some(pid), .. } if pid == std::process::id()));
    let text = error.to_string();
    assert!(text.contains(&format!("(process {})", std::process::id())) && text.contains("atmo down"), "{text}");
    assert!(!text.contains('\n'));
    drop(store);
    assert_eq!(holder_of(dir.path()), None);
    Store::open(dir.path()).unwrap();
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = {
        let store = Store::open(dir.path()).unwrap();
        store.save_membership(&membership(1)).unwrap();
        store.dir().join("mesh.json")
    };
    let whole = std::fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Store::open(dir.path()).unwrap().membership().unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { path: named, .. } if *named == path), "{error}");
    };
    for length in [0, 1, 30, whole.len() / 2, whole.len() - 1] {
        damaged(&whole[..length]);
    }
    for at in (0..whole.len()).step_by(13) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x04;
        std::fs::write(&path, &flipped).unwrap();
        let error = Store::open(dir.path()).unwrap().membership().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Newer { .. }), "byte {at}: {error}");
    }
    damaged(&[0xff; 64]);
    std::fs::write(&path, &whole).unwrap();
    assert!(Store::open(dir.path()).unwrap().membership().unwrap().is_some());
}

#[test]
fn what_a_newer_version_wrote_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save_listen(vec!["x".to_owned()]).unwrap();
    let path = store.dir().join("state.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("state.json 1 ", "state.json 9 ");
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(store.state(), Err(StoreError::Newer { found: 9, known: 1, .. })));
    assert!(matches!(store.raise_incarnation(5), Err(StoreError::Newer { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_full_disk_is_one_line_and_changes_nothing() {
    let error = document::io_error("/data/mesh.json".into(), io::Error::from(io::ErrorKind::StorageFull));
    assert!(error.to_string().starts_with("no space left on the disk: /data/mesh.json"), "{error}");
    // A write that fails for any cause leaves the old file. A folder in the way of the unfinished file makes it fail.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save_invitations(mesh(1), vec![1]).unwrap();
    std::fs::create_dir(store.dir().join("invitations.json.new")).unwrap();
    assert!(matches!(store.save_invitations(mesh(1), vec![2]), Err(StoreError::Io { .. })));
    assert_eq!(store.invitations(&mesh(1)).unwrap(), Some(vec![1]));
}

#[test]
fn a_secret_is_never_printed() {
    let shown = format!("{:?}", membership(1));
    assert!(shown.contains("Seed(not shown)"), "{shown}");
}

/// Not a test by itself: with [`CRASH_DIR`] set it is the process that is killed.
#[test]
fn writer_that_is_killed() {
    let Some(dir) = std::env::var_os(CRASH_DIR) else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    let first = store.state().unwrap().incarnation + 1;
    let end = Instant::now() + Duration::from_secs(20);
    for round in 0.. {
        store.save_membership(&membership(round as u8)).unwrap();
        store.save_invitations(mesh(round as u8), vec![round as u8; 5_000]).unwrap();
        store.raise_incarnation(first + round).unwrap();
        if Instant::now() > end {
            break;
        }
    }
}

#[test]
fn a_killed_writer_leaves_a_readable_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    let mut wrote = 0;
    for round in 0..25_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writer_that_is_killed", "--test-threads=1"])
            .env(CRASH_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over where a write can be; odd numbers so that no period of the writer is hit again and again.
        std::thread::sleep(Duration::from_micros(15_000 + round * 3_137));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let incarnation = store.state().unwrap().incarnation;
        assert!(incarnation >= last, "an incarnation never goes back");
        wrote += usize::from(incarnation > last);
        last = incarnation;
        if let Some(membership) = store.membership().unwrap() {
            assert!(
                membership.chain.iter().all(|byte| [*byte; 32] == *membership.mesh.as_bytes()),
                "old or new, never a mixture"
            );
            store.invitations(&membership.mesh).unwrap();
        }
        assert!(!store.dir().join("mesh.json.new").exists(), "what was unfinished is swept");
    }
    assert!(wrote > 0, "the writer was killed before it wrote anything");
}
