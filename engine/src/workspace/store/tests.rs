use std::thread;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::tests::tiny_checkpoint;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::at(folder.path().join("home"));
    (folder, store)
}

fn own_key(store: &Store) -> SecretKey {
    store.load_key_or_create().expect("the folder is ours").0
}

fn stranger() -> SecretKey {
    SecretKey::generate().expect("the system has randomness")
}

fn is_dirty(folder: &Path) -> bool {
    let names = fs::read_dir(folder).expect("it exists").map(|entry| entry.expect("readable").file_name());
    names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp"))
}

#[test]
fn the_environment_names_the_root_or_the_platform_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::default_root(Some(folder.path().to_owned())).expect("given");
    assert_eq!(store.root(), folder.path());
    if let Ok(store) = Store::default_root(Some(PathBuf::new())) {
        assert!(store.root().ends_with("nanochat") && store.root().is_absolute(), "{store:?}");
    }
}

#[test]
fn workspaces_of_one_name_have_places_of_their_own() {
    let (folder, store) = store();
    let roots = ["a/My App", "b/My App"].map(|name| folder.path().join(name));
    roots.iter().for_each(|root| fs::create_dir_all(root).expect("the folder is ours"));
    let paths = roots.each_ref().map(|root| store.checkpoint_path(root));
    assert_ne!(paths[0], paths[1]);
    assert_eq!(paths[0], store.checkpoint_path(&roots[0].join("../My App")));
    assert_eq!(paths[0].file_name().expect("a file"), "checkpoint.ncz");
    let place = paths[0].parent().expect("a folder");
    assert_eq!(store.state_dir(&roots[0]).parent(), Some(place));
    let name = place.file_name().expect("a name").to_str().expect("ASCII");
    assert!(name.starts_with("my-app-") && name.len() == "my-app-".len() + 16, "{name}");
    // A folder that is not there, and a root that has no name, have places too.
    store.checkpoint_path(&folder.path().join("gone"));
    store.checkpoint_path(Path::new("/"));
}

#[test]
fn a_workspace_is_trusted_once_the_user_says_so_and_no_other_with_it() {
    let (folder, store) = store();
    let roots = ["a/app", "b/app"].map(|name| folder.path().join(name));
    roots.iter().for_each(|root| fs::create_dir_all(root).expect("the folder is ours"));
    let trusts = |root: &Path| store.trusts_workspace(root).expect("it can be read");
    assert!(!trusts(&roots[0]));
    store.trust_workspace(&roots[0]).expect("the folder is ours");
    assert!(trusts(&roots[0]) && trusts(&roots[0].join("../app")) && !trusts(&roots[1]));
    // A record of another path with the same hash does not count for this one.
    let place = |root: &Path| store.checkpoint_path(root).with_file_name("trusted");
    fs::create_dir_all(place(&roots[1]).parent().expect("a folder")).expect("the folder is ours");
    fs::copy(place(&roots[0]), place(&roots[1])).expect("a copy");
    assert!(!trusts(&roots[1]));
}

#[test]
fn the_first_key_stays() {
    let (_folder, store) = store();
    let (key, created) = store.load_key_or_create().expect("the folder is ours");
    assert!(created);
    let (again, created) = store.load_key_or_create().expect("the folder is ours");
    assert!(!created);
    assert_eq!(again.public(), key.public());
    assert_eq!(store.load_public_key().expect("written"), Some(key.public()));
    fs::remove_file(store.public_key_path()).expect("it is there");
    store.load_key_or_create().expect("the folder is ours");
    assert_eq!(store.load_public_key().expect("written again"), Some(key.public()));
    assert!(!is_dirty(store.root()));
}

#[test]
fn processes_that_make_a_key_at_the_same_time_end_with_one() {
    let (_folder, store) = store();
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            thread::spawn(move || store.load_key_or_create().expect("the folder is ours"))
        })
        .collect();
    let keys: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("no panic")).collect();
    assert_eq!(keys.iter().filter(|(_, created)| *created).count(), 1);
    assert!(keys.iter().all(|(key, _)| key.public() == keys[0].0.public()));
}

#[cfg(unix)]
#[test]
fn the_key_file_is_private_and_one_that_is_not_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, store) = store();
    own_key(&store);
    let path = store.secret_key_path();
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let error = store.load_key_or_create().expect_err("others can read it");
    assert!(matches!(error, StoreError::KeyExposed { .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_broken_key_file_is_refused_and_left_alone() {
    let (_folder, store) = store();
    own_key(&store);
    fs::write(store.secret_key_path(), "something else\n").expect("it is ours");
    assert!(matches!(store.load_key_or_create(), Err(StoreError::Key { .. })));
    assert_eq!(fs::read_to_string(store.secret_key_path()).expect("it is there"), "something else\n");
}

#[test]
fn an_empty_store_trusts_nobody_and_one_with_a_key_trusts_it() {
    let (_folder, store) = store();
    assert_eq!(store.load_trust().expect("nothing there"), Trust::default());
    let key = own_key(&store).public();
    let trust = store.load_trust().expect("readable");
    assert_eq!(trust.trusted(key.id()).expect("our own").key, key);
}

#[test]
fn trust_and_revocation_last() {
    let (_folder, store) = store();
    let (ada, bob) = (stranger().public(), stranger().public());
    store.trust_key("Ada", ada.clone()).expect("new");
    store.trust_key("Bob \"the builder\"\n", bob.clone()).expect("new");
    store.trust_key("Ada Lovelace", ada.clone()).expect("a new name");
    let trust = store.load_trust().expect("readable");
    assert_eq!(trust.trusted(ada.id()).expect("trusted").name, "Ada Lovelace");
    assert_eq!(trust.trusted(bob.id()).expect("trusted").name, "Bob \"the builder\"\n");
    assert_eq!(trust.keys.len(), 2);

    store.revoke_key(ada.clone()).expect("known");
    store.revoke_key(ada.clone()).expect("again");
    let trust = store.load_trust().expect("readable");
    assert!(trust.is_revoked(&ada) && !trust.is_revoked(&bob));
    assert_eq!((trust.keys.len(), trust.revoked.len()), (1, 1));
    assert!(matches!(store.trust_key("Ada", ada), Err(StoreError::Revoked { .. })));
}

#[test]
fn marks_rise_and_never_fall() {
    let (_folder, store) = store();
    let key = stranger().public().id();
    for (version, mark) in [(3, 3), (2, 3), (5, 5)] {
        store.save_mark(key, "a \"model\"", version).expect("the folder is ours");
        assert_eq!(store.load_trust().expect("readable").mark(key, "a \"model\""), mark);
    }
    store.save_mark(key, "another", 1).expect("the folder is ours");
    assert_eq!(store.load_trust().expect("readable").marks.len(), 2);
}

#[test]
fn marks_saved_at_the_same_time_are_all_kept() {
    let (_folder, store) = store();
    let key = stranger().public().id();
    let writers: Vec<_> = (0..8)
        .map(|index| {
            let store = store.clone();
            thread::spawn(move || store.save_mark(key, &format!("model {index}"), 1).expect("the folder is ours"))
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    assert_eq!(store.load_trust().expect("readable").marks.len(), 8);
}

#[test]
fn tables_that_say_something_else_are_refused_with_their_path() {
    let (_folder, store) = store();
    fs::create_dir_all(store.root()).expect("the folder is ours");
    let key = stranger().public().to_base64();
    let twice = format!("[[trusted]]\nname = \"a\"\nkey = \"{key}\"\n").repeat(2);
    for (file, text) in [
        (TRUST, "not toml"),
        (TRUST, "[[trusted]]\nname = \"a\"\n"),
        (TRUST, "[[trusted]]\nname = \"a\"\nkey = \"RWQ\"\n"),
        (TRUST, twice.as_str()),
        (TRUST, "[[friends]]\n"),
        (MARKS, "[[mark]]\nkey = \"x\"\nmodel_id = \"m\"\nversion = 1\n"),
        (MARKS, "[[mark]]\nkey = \"0000000000000001\"\nmodel_id = \"m\"\nversion = -1\n"),
    ] {
        let path = store.root().join(file);
        fs::write(&path, text).expect("the folder is ours");
        let error = store.load_trust().expect_err(text);
        let message = error.to_string();
        assert!(matches!(error, StoreError::Table { .. }), "{message}");
        assert!(message.contains(file) && !message.contains('\n'), "{message:?}");
        fs::remove_file(path).expect("it is there");
    }
}

#[test]
fn what_is_installed_opens_and_gets_the_next_version() {
    let (_folder, store) = store();
    let key = own_key(&store);
    let path = store.checkpoint_path(Path::new("/some/workspace"));
    assert!(matches!(store.open_checkpoint(&path), Err(StoreError::Missing { .. })));
    for version in 1..=3 {
        let manifest = store.install(&tiny_checkpoint(), &key, &path).expect("in order");
        assert_eq!(manifest.version, version);
        assert_eq!(store.open_checkpoint(&path).expect("our own").manifest, manifest);
    }
    assert!(!is_dirty(path.parent().expect("a folder")));
}

#[test]
fn an_older_checkpoint_is_refused_after_a_newer_one_was_opened() {
    let (folder, store) = store();
    let key = stranger();
    store.trust_key("Ada", key.public()).expect("new");
    let file = |version: u64| {
        let mut checkpoint = tiny_checkpoint();
        checkpoint.manifest.version = version;
        let path = folder.path().join(format!("{version}.ncz"));
        write_durably(&path, |out| checkpoint.write(out, &key)).expect("the folder is ours");
        path
    };
    store.open_checkpoint(&file(1)).expect("trusted");
    store.open_checkpoint(&file(2)).expect("newer");
    let error = store.open_checkpoint(&file(1)).expect_err("older");
    assert!(matches!(&error, StoreError::Checkpoint { source: CheckpointError::Rollback { mark: 2, .. }, .. }));
    assert!(error.to_string().contains("1.ncz"), "{error}");
}

#[test]
fn a_checkpoint_that_is_refused_raises_no_mark() {
    let (folder, store) = store();
    let key = own_key(&store);
    let path = folder.path().join("tampered.ncz");
    let mut bytes = Vec::new();
    let mut checkpoint = tiny_checkpoint();
    checkpoint.manifest.version = 9;
    checkpoint.write(&mut bytes, &key).expect("in order");
    *bytes.last_mut().expect("it has bytes") ^= 1;
    fs::write(&path, bytes).expect("the folder is ours");
    store.open_checkpoint(&path).expect_err("tampered with");
    assert!(store.load_trust().expect("readable").marks.is_empty());
}

#[test]
fn a_revoked_key_of_our_own_signs_nothing_more() {
    let (folder, store) = store();
    let key = own_key(&store);
    store.revoke_key(key.public()).expect("known");
    let path = folder.path().join("checkpoint.ncz");
    assert!(matches!(store.install(&tiny_checkpoint(), &key, &path), Err(StoreError::Revoked { .. })));
    assert!(!path.exists());
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let (folder, _) = store();
    let path = folder.path().join("file");
    write_durably(&path, |out| out.write_all(b"old")).expect("the folder is ours");
    let failed: Result<(), io::Error> = write_durably(&path, |out| {
        out.write_all(b"half of the new")?;
        Err(io::Error::other("interrupted"))
    });
    failed.expect_err("it was interrupted");
    assert_eq!(fs::read(&path).expect("it is there"), b"old");
    assert!(!is_dirty(folder.path()));
}

#[test]
fn a_folder_where_a_checkpoint_should_be_is_an_error() {
    let (folder, store) = store();
    let error = store.open_checkpoint(folder.path()).expect_err("a folder");
    assert!(!error.to_string().contains('\n'), "{error}");
}
