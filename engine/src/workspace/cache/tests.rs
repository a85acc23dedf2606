use std::sync::mpsc::channel;

use super::*;
use crate::memory::index::{Names, TokenWriter};
use crate::memory::{Lookup, Memory, Tier};
use crate::symbols::CursorSymbols;
use crate::text::tokenizer::tests::sample;

/// Packages in a folder, and a cache next to them.
struct World {
    folder: tempfile::TempDir,
    packages: Vec<Package>,
    tokenizer: Tokenizer,
}

impl World {
    /// Files, `//- package/path` before each.
    fn new(files: &str) -> Self {
        let mut world =
            Self { folder: tempfile::tempdir().expect("a temporary folder"), packages: vec![], tokenizer: sample() };
        for file in files.split("//- ").skip(1) {
            let (path, text) = file.split_once('\n').expect("a path line");
            world.write(path, text.as_bytes());
            let name = path.split('/').next().expect("a package").to_owned();
            if !world.packages.iter().any(|package| package.name == name) {
                let folder = world.folder.path().join(&name);
                let (version, edition) = ("1.0.0".to_owned(), "2024".to_owned());
                world.packages.push(Package { name, version, edition, licence: None, folder, role: Role::Dependency });
            }
        }
        world
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    fn cache(&self) -> Cache {
        Cache::at(self.folder.path().join("cache"))
    }

    fn library(&self) -> (Library, Vec<Event>) {
        self.library_of(&self.cache())
    }

    fn library_of(&self, cache: &Cache) -> (Library, Vec<Event>) {
        let mut events = Vec::new();
        let request =
            Request { packages: &self.packages, tokenizer: &self.tokenizer, n_threads: 2, cancel: &Cancel::new() };
        let library = cache.library(&request, &mut |event| events.push(event)).expect("nobody cancels");
        (library, events)
    }

    /// What comes after a text, by this library alone.
    fn after(&self, library: &Library, text: &str) -> String {
        let memory = Memory::default().with_tier(Tier::Dependencies, library.clone());
        let mut context = self.tokenizer.encode(text.as_bytes());
        let (mut lookup, mut found) = (Lookup::default(), Vec::new());
        for _ in 0..5 {
            memory.lookup(&context, "", &mut lookup);
            let Some(token) = lookup.favourite() else { break };
            context.push(token);
            found.push(token);
        }
        String::from_utf8(self.tokenizer.decode(&found)).expect("text")
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("cache").join(folder)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }
}

fn two() -> World {
    World::new(
        "//- one/src/lib.rs\npub fn count_words(text: &str) -> usize {\n    text.split_whitespace().count()\n}\n\
         //- one/src/same.rs\npub fn same() {}\n\
         //- two/src/lib.rs\npub fn count_lines(text: &str) -> usize {\n    text.lines().count()\n}\n\
         //- two/src/same.rs\npub fn same() {}\n",
    )
}

fn set_time(paths: &[PathBuf], time: SystemTime) {
    for path in paths {
        File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
    }
}

fn n_bytes(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| fs::metadata(path).expect("it is there").len()).sum()
}

fn skipped(events: &[Event]) -> Vec<&str> {
    let reasons = events.iter().filter_map(|event| match event {
        Event::Skipped { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn a_second_workspace_with_the_same_packages_starts_warm() {
    let mut world = two();
    let (library, events) = world.library();
    assert!(events.is_empty(), "{events:?}");
    assert!(world.after(&library, "count_lines(text: &str) -> usize {\n    text").starts_with(".lines()"));
    assert_eq!(library.n_bytes().1, 0, "the index is mapped");
    let index = world.files("indexes");
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("it is there");
    let streams: Vec<_> = world.files("streams").iter().map(|path| age(path)).collect();
    // In another order, and the streams are not needed.
    world.packages.reverse();
    let (again, events) = world.library();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!((again.n_tokens(), world.files("indexes")), (library.n_tokens(), index));
    assert_eq!(world.files("streams").iter().map(|path| age(path)).collect::<Vec<_>>(), streams);
}

#[test]
fn the_same_file_in_two_packages_counts_once() {
    let world = two();
    let (library, _) = world.library();
    let memory = Memory::default().with_tier(Tier::Dependencies, library);
    let mut lookup = Lookup::default();
    memory.lookup(&world.tokenizer.encode(b"pub fn same"), "", &mut lookup);
    assert_eq!(lookup.tiers[Tier::Dependencies as usize][0].total, 1);
}

#[test]
fn a_package_in_two_folders_is_read_once() {
    let mut world = two();
    world.library();
    let index = world.files("indexes");
    world.write("vendored/src/lib.rs", b"pub fn vendored() {}\n");
    let vendored = Package { folder: world.folder.path().join("vendored"), ..world.packages[0].clone() };
    world.packages.push(vendored);
    let (_, events) = world.library();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!((world.files("indexes"), world.files("streams").len()), (index, 2));
}

#[test]
fn another_tokenizer_has_an_index_of_its_own() {
    let mut world = two();
    let (library, _) = world.library();
    world.tokenizer = Tokenizer::bytes();
    let (bytes, events) = world.library();
    assert!(events.is_empty() && bytes.n_tokens() > library.n_tokens(), "{events:?}");
    assert_eq!(world.files("indexes").len(), 2);
}

#[test]
fn a_package_that_changed_is_read_again() {
    let world = two();
    world.library();
    world.write("one/src/lib.rs", b"pub fn changed() -> bool {\n    true\n}\n");
    let (library, events) = world.library();
    assert!(events.is_empty(), "{events:?}");
    assert!(world.after(&library, "pub fn changed").starts_with("()"));
    assert_eq!((world.files("streams").len(), world.files("stamps").len()), (3, 2));
}

#[test]
fn whatever_byte_is_flipped_or_cut_off_the_index_is_made_anew() {
    let world = two();
    let (library, _) = world.library();
    let expected = world.after(&library, "count_lines(text: &str) -> usize {\n    text");
    let index = world.files("indexes").remove(0);
    let whole = fs::read(&index).expect("it was written");
    let step = whole.len() / 150;
    let flipped = (0..whole.len()).step_by(step.max(1)).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..whole.len()).step_by(step.max(1)).map(|len| whole[..len].to_vec());
    let longer = [whole.clone(), vec![0]].concat();
    for damaged in flipped.chain(cut).chain([longer]) {
        fs::write(&index, &damaged).expect("a file");
        let (library, events) = world.library();
        assert!(matches!(events.as_slice(), [Event::Damaged { .. }]), "it is reported once: {events:?}");
        assert_eq!(world.after(&library, "count_lines(text: &str) -> usize {\n    text"), expected);
        assert_eq!(fs::read(&index).expect("it was rebuilt"), whole);
    }
}

#[test]
fn a_damaged_stream_or_stamp_is_made_anew() {
    let world = two();
    world.library();
    let index = world.files("indexes").remove(0);
    let whole = fs::read(&index).expect("it was written");
    for path in [world.files("streams"), world.files("stamps")].concat() {
        let good = fs::read(&path).expect("it was written");
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            for bytes in [&bad[..], &good[..at]] {
                fs::write(&path, bytes).expect("a file");
                fs::remove_file(&index).expect("it was there");
                let (_, events) = world.library();
                assert!(events.iter().all(|event| matches!(event, Event::Damaged { .. })), "{events:?}");
                assert_eq!(fs::read(&index).expect("it was rebuilt"), whole);
            }
        }
        assert_eq!(fs::read(&path).expect("it was rebuilt"), good);
    }
}

#[test]
fn what_no_hand_wrote_is_left_out_with_a_reason() {
    let world = two();
    world.write("one/src/huge.rs", &vec![b' '; 5 << 20]);
    world.write("one/src/line.rs", &b"x+".repeat(250_000));
    world.write("one/src/table.rs", b"// @generated by a tool\npub const A: u8 = 1;\n");
    world.write("one/src/latin1.rs", b"// caf\xe9");
    let (library, events) = world.library();
    let reasons = skipped(&events);
    assert_eq!(reasons.len(), 4, "{events:?}");
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(world.after(&library, "count_lines(text: &str) -> usize {\n    text").starts_with(".lines()"));
}

#[test]
fn a_package_of_many_megabytes_is_left_out_unread() {
    let world = two();
    for i in 0..5 {
        let file = fs::File::create(world.folder.path().join(format!("one/src/f{i}.rs"))).expect("a file");
        file.set_len(10 << 20).expect("a sparse file");
    }
    let (library, events) = world.library();
    assert!(skipped(&events)[0].contains("50 MiB"), "{events:?}");
    assert_eq!(world.after(&library, "pub fn count_words(text: &str) -> usize {\n    text.split"), "");
}

#[cfg(unix)]
#[test]
fn loops_of_symlinks_end() {
    let world = two();
    let src = world.folder.path().join("one/src");
    std::os::unix::fs::symlink(&src, src.join("again")).expect("a symlink");
    std::os::unix::fs::symlink("self.rs", src.join("self.rs")).expect("a symlink");
    let (library, events) = world.library();
    assert_eq!(skipped(&events), ["it is a symlink, which may lead outside the package"]);
    assert!(library.n_tokens() > 0);
}

#[test]
fn a_folder_that_vanishes_leaves_the_others() {
    let world = two();
    // Gone when it is looked at, and gone once its stamp was taken.
    fs::remove_dir_all(world.folder.path().join("one")).expect("it was there");
    let (library, events) = world.library();
    assert_eq!(skipped(&events).len(), 1, "{events:?}");
    assert!(world.after(&library, "count_lines(text: &str) -> usize {\n    text").starts_with(".lines()"));
}

#[test]
fn a_folder_that_cannot_be_written_gives_what_the_heap_holds() {
    let world = two();
    // A file where the folder should be: nobody, root included, can write there.
    world.write("cache", b"");
    let (library, events) = world.library();
    assert!(events.iter().any(|event| matches!(event, Event::NotKept { .. })), "{events:?}");
    assert!(library.n_bytes().1 > 0);
    assert!(world.after(&library, "count_lines(text: &str) -> usize {\n    text").starts_with(".lines()"));
}

#[test]
fn an_index_that_cannot_get_its_name_is_on_the_heap() {
    let world = two();
    world.library();
    let index = world.files("indexes").remove(0);
    fs::remove_file(&index).expect("it was written");
    // No file can be renamed to a folder, so that the failure comes after all was encoded.
    fs::create_dir(&index).expect("a folder");
    let (library, events) = world.library();
    assert!(events.iter().any(|event| matches!(event, Event::NotKept { .. })), "{events:?}");
    assert!(library.n_bytes().1 > 0);
    assert!(world.after(&library, "count_lines(text: &str) -> usize {\n    text").starts_with(".lines()"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_the_writer_and_no_index() {
    // Writing to this device always fails as on a full disk.
    let out = File::options().write(true).open("/dev/full").expect("Linux has it");
    let nothing = |_: &mut TokenWriter<'_>| Ok::<_, io::Error>((Names::default(), identity(&sample(), &[])));
    let error = crate::memory::index::write(&out, 1, &Cancel::new(), nothing).expect_err("it is full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn the_least_used_goes_first_when_the_cache_is_full() {
    let mut world = two();
    world.library();
    let first = world.files("indexes");
    let old = SystemTime::now() - Duration::from_secs(100);
    let all = [world.files("indexes"), world.files("streams")].concat();
    set_time(&all, old);
    set_time(&world.files("stamps"), old);
    world.write("cache/indexes/.nanochat-dead.tmp", b"left behind");
    let dead = world.folder.path().join("cache/indexes/.nanochat-dead.tmp");
    set_time(std::slice::from_ref(&dead), old - ABANDONED);
    world.write("cache/stamps/forgotten", b"of a package that nobody has any more");
    let forgotten = world.folder.path().join("cache/stamps/forgotten");
    set_time(std::slice::from_ref(&forgotten), old - FORGOTTEN);
    world.packages.truncate(1);
    let (library, events) = world.library_of(&world.cache().with_most_bytes(n_bytes(&all)));
    assert!(events.is_empty() && library.n_tokens() > 0, "{events:?}");
    let second = world.files("indexes");
    assert!(second.len() == 1 && second != first, "{second:?}");
    assert!(!dead.exists() && !forgotten.exists());
    assert_eq!(world.files("stamps").len(), 2);
}

#[test]
fn an_older_workspace_that_is_used_opens_warm_after_an_eviction() {
    let mut world = two();
    let both = world.packages.clone();
    world.library();
    let used = world.files("indexes").remove(0);
    world.packages.truncate(1);
    world.library();
    let all = [world.files("indexes"), world.files("streams")].concat();
    let old = SystemTime::now() - Duration::from_secs(100);
    set_time(&all, old);
    world.packages.clone_from(&both);
    world.library();
    // Stamps are the oldest: that must not matter.
    set_time(&world.files("stamps"), old - Duration::from_secs(100));
    // The other workspace's index is made again, in a cache that is one byte too small for all.
    let limit = n_bytes(&all) - 1;
    let other = world.files("indexes").into_iter().find(|path| *path != used).expect("there are two");
    fs::remove_file(other).expect("it was there");
    world.packages.truncate(1);
    world.library_of(&world.cache().with_most_bytes(limit));
    let streams = world.files("streams");
    assert_eq!(streams.len(), 1, "the stream that only the older workspace has is the least used");
    world.packages = both;
    let (library, events) = world.library();
    assert!(events.is_empty() && library.n_bytes().1 == 0, "{events:?}");
    assert_eq!(world.files("streams"), streams, "nothing is encoded again");
}

#[test]
fn of_two_processes_the_second_waits_and_takes_what_the_first_made() {
    let world = two();
    fs::create_dir_all(world.folder.path().join("cache")).expect("a folder");
    let lock = File::create(world.folder.path().join("cache/lock")).expect("a file");
    lock.lock().expect("nobody has it");
    let (sender, events) = channel();
    std::thread::scope(|scope| {
        let (world, cache) = (&world, world.cache());
        let second = scope.spawn(move || {
            let cancel = Cancel::new();
            let request =
                Request { packages: &world.packages, tokenizer: &world.tokenizer, n_threads: 1, cancel: &cancel };
            cache.library(&request, &mut |event| sender.send(event).expect("it is read")).expect("nobody cancels")
        });
        assert!(matches!(events.recv(), Ok(Event::Waiting)));
        lock.unlock().expect("it was locked");
        assert!(second.join().expect("no panic").n_tokens() > 0);
    });
}

#[test]
fn a_cancelled_build_ends_and_leaves_nothing_behind() {
    let world = two();
    let cancel = Cancel::new();
    cancel.cancel();
    let request = Request { packages: &world.packages, tokenizer: &world.tokenizer, n_threads: 2, cancel: &cancel };
    assert!(world.cache().library(&request, &mut |_| ()).is_err());
    assert!(world.files("indexes").is_empty());
}

#[test]
fn an_index_that_is_cancelled_while_it_is_sorted_ends() {
    let cancel = Cancel::new();
    let tokens = |_: &mut TokenWriter<'_>| {
        cancel.cancel();
        Ok::<_, io::Error>((Names::default(), identity(&sample(), &[])))
    };
    let file = tempfile::tempfile().expect("a temporary file");
    let error = crate::memory::index::write(&file, 2, &cancel, tokens).expect_err("it is cancelled");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
}

#[test]
fn the_standard_library_is_the_crates_of_its_folder() {
    let world = World::new("//- library/core/src/lib.rs\npub fn drop() {}\n//- library/std/src/lib.rs\n");
    let library = world.folder.path().join("library");
    world.write("library/core/Cargo.toml", b"[package]\nname = \"core\"\n");
    let packages = std_packages(&library);
    assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["core"]);
    assert!(std_packages(&world.folder.path().join("nowhere")).is_empty());
}

/// Whether a public member of each of two packages is known, and how many events there were.
fn symbols(world: &World) -> ([bool; 2], usize) {
    let mut n_events = 0;
    let request =
        Request { packages: &world.packages, tokenizer: &world.tokenizer, n_threads: 2, cancel: &Cancel::new() };
    let symbols = world.cache().symbols(&request, &mut |_| n_events += 1).expect("nobody cancels");
    let memory = Memory::default().with_symbols(Tier::Dependencies, symbols);
    let around = CursorSymbols::of(memory.symbols(), "a.rs", "fn f(one: One, two: Two) {\n", "}\n");
    (["one.first", "two.second"].map(|line| around.members(line, 0).n_existing == 1), n_events)
}

fn two_types() -> World {
    World::new(
        "//- one/src/lib.rs\npub struct One { pub first: u8 }\n//- two/src/lib.rs\npub struct Two { pub second: u8 }\n",
    )
}

#[test]
fn what_types_have_is_kept_and_read_again_where_a_package_changed() {
    let world = two_types();
    assert_eq!(symbols(&world), ([true, true], 0));
    let kept = world.files("symbols");
    assert_eq!(kept.len(), 2);
    let contents =
        |files: &[PathBuf]| -> Vec<Vec<u8>> { files.iter().map(|path| fs::read(path).expect("it is there")).collect() };
    let before = contents(&kept);
    assert_eq!(symbols(&world), ([true, true], 0));
    assert_eq!(contents(&kept), before);
    world.write("one/src/lib.rs", b"pub struct One { pub another: u8 }\n");
    assert_eq!(symbols(&world), ([false, true], 0));
    assert_ne!(contents(&kept), before);
}

#[test]
fn whatever_byte_is_flipped_or_cut_off_symbols_are_read_again() {
    let world = two_types();
    assert_eq!(symbols(&world), ([true, true], 0));
    let path = &world.files("symbols")[0];
    let whole = fs::read(path).expect("it is there");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [&flipped[..], &whole[..at]] {
            fs::write(path, damaged).expect("it can be written");
            assert_eq!(symbols(&world), ([true, true], 0), "byte {at}");
            assert_eq!(fs::read(path).expect("it is there"), whole);
        }
    }
}

#[test]
fn symbols_that_cannot_be_kept_are_there_all_the_same() {
    let world = two_types();
    fs::write(world.folder.path().join("cache"), b"no folder").expect("a file");
    assert_eq!(symbols(&world), ([true, true], 1));
}

#[test]
fn a_package_that_vanished_has_no_symbols() {
    let world = two_types();
    fs::remove_dir_all(world.folder.path().join("one")).expect("it was there");
    assert_eq!(symbols(&world), ([false, true], 0));
}
