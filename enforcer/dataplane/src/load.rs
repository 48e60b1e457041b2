//! Brings the kernel object in: maps from their pins or new, programs through the verifier. Owns whether pinned maps
//! are adopted or replaced, and the order in which replacements take their place.

use crate::attach::{self, Links};
use crate::error::Error;
use crate::feature;
use crate::layout::{Layout, layouts, misfit};
use crate::options::{Capacities, HookChoice, Options};
use crate::sys::Store;
use aya::maps::MapData;
use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use enforcer_common::abi::{ABI_VERSION, Settings, map, program};
use std::fs;
use std::path::{Path, PathBuf};

/// The programs, as the build script left them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer.bpf.o"));

/// Where a replacement's maps are pinned until it is in force.
const NEXT: &str = "next";

/// Whose maps the programs work on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// None were pinned.
    New,
    /// Those that were pinned.
    Adopted,
    /// New ones beside those that were pinned, because of this map: what is attached goes on with the old ones.
    Beside(&'static str),
}

/// A loaded object.
pub(crate) struct Loaded {
    pub(crate) object: Ebpf,
    pub(crate) origin: Origin,
}

/// Loads the object's maps and the two programs that are attached, and holds their places meanwhile.
pub(crate) fn load(options: &Options, links: &Links) -> Result<Loaded, Error> {
    let layouts = layouts(&options.capacities);
    let directory = &options.pin_directory;
    let origin = origin(directory, &layouts);
    let maps_at = match origin {
        Origin::Beside(_) => fresh_directory(&directory.join(NEXT))?,
        Origin::New | Origin::Adopted => directory.clone(),
    };
    let mut object = create(&maps_at, &options.capacities)?;
    let expected = if options.hook == HookChoice::Newest { &options.expected[..] } else { &[] };
    let hold = |passing: &mut SchedClassifier| attach::hold_places(links, passing, expected);
    let names = [program::FROM_WORKLOAD, program::TO_WORKLOAD];
    if expected.is_empty() {
        load_programs(&mut object, &names)
    } else {
        load_beside(&mut object, &names, hold)
    }?;
    Ok(Loaded { object, origin })
}

/// A classifier of the object, loaded before.
pub(crate) fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(Error::Object(name))
}

/// As [`load_programs`], while `beside` does something with the program that passes everything.
fn load_beside(
    object: &mut Ebpf,
    names: &[&'static str],
    beside: impl FnOnce(&mut SchedClassifier) + Send,
) -> Result<(), Error> {
    let (passing, others): (Vec<_>, Vec<_>) =
        object.programs_mut().partition(|(name, _)| *name == program::EMPTY);
    std::thread::scope(|scope| {
        if let Some((_, passing)) = passing.into_iter().next() {
            scope.spawn(move || {
                load_program(program::EMPTY, passing)?;
                beside(passing.try_into().map_err(|_| Error::Object(program::EMPTY))?);
                Ok::<_, Error>(())
            });
        }
        load_some(others, names)
    })
}

/// Passes programs through the verifier, side by side: it is what takes the time at start.
pub(crate) fn load_programs(object: &mut Ebpf, names: &[&'static str]) -> Result<(), Error> {
    load_some(object.programs_mut(), names)
}

fn load_some<'a>(
    programs: impl IntoIterator<Item = (&'a str, &'a mut Program)>,
    names: &[&'static str],
) -> Result<(), Error> {
    let named = |(found, program)| Some((*names.iter().find(|name| **name == found)?, program));
    let programs: Vec<(&'static str, &mut Program)> = programs.into_iter().filter_map(named).collect();
    if let Some(absent) = names.iter().find(|name| programs.iter().all(|(found, _)| found != *name)) {
        return Err(Error::Object(absent));
    }
    std::thread::scope(|scope| {
        let verify = |(name, program)| scope.spawn(move || load_program(name, program));
        let running: Vec<_> = programs.into_iter().map(verify).collect();
        running.into_iter().try_for_each(|one| one.join().expect("loading a program does not panic"))
    })
}

fn load_program(name: &'static str, program: &mut Program) -> Result<(), Error> {
    let classifier: &mut SchedClassifier = program.try_into().map_err(|_| Error::Object(name))?;
    classifier.load().map_err(|source| {
        feature::explain("load the kernel programs")
            .unwrap_or_else(|| Error::Program { program: name, source: Box::new(source) })
    })
}

/// Moves a replacement's maps to where those it replaces are pinned. The settings, which hold the version, are taken
/// away first and put back last: a restart that finds none in between replaces again.
pub(crate) fn settle(directory: &Path) -> Result<(), Error> {
    let next = directory.join(NEXT);
    remove(&directory.join(map::SETTINGS))?;
    let others = map::PINNED.iter().filter(|name| **name != map::SETTINGS);
    for name in others.chain([&map::SETTINGS]) {
        let from = next.join(name);
        fs::rename(&from, directory.join(name)).map_err(|source| Error::io("move", &from, source))?;
    }
    fs::remove_dir(&next).map_err(|source| Error::io("remove", &next, source))
}

/// Removes every pinned map, a replacement's too; what programs still use lives on until they are gone.
pub(crate) fn unpin(directory: &Path) -> Result<(), Error> {
    for place in [directory.join(NEXT), directory.to_owned()] {
        for name in map::PINNED {
            remove(&place.join(name))?;
        }
    }
    match fs::remove_dir(directory.join(NEXT)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &directory.join(NEXT), source))
        }
        _ => Ok(()),
    }
}

/// Removes a file; one that is not there is removed.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, source))
        }
        _ => Ok(()),
    }
}

/// The object over the maps that are pinned in a directory; those that are not there are made.
pub(crate) fn create(maps_at: &Path, capacities: &Capacities) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // No relocation against the kernel's own types is needed: its BTF would be 5 MiB to parse for nothing.
    loader.btf(None);
    for layout in layouts(capacities) {
        loader.map_max_entries(layout.name, layout.entries);
        loader.map_pin_path(layout.name, maps_at.join(layout.name));
    }
    loader.load(OBJECT).map_err(|source| {
        feature::explain("create the maps").unwrap_or_else(|| Error::Load(Box::new(source)))
    })
}

fn origin(directory: &Path, layouts: &[Layout]) -> Origin {
    let settings = directory.join(map::SETTINGS);
    if !layouts.iter().any(|layout| directory.join(layout.name).exists()) {
        return Origin::New;
    }
    match misfit(directory, layouts) {
        Some(name) => Origin::Beside(name),
        None if version(&settings) == Some(ABI_VERSION) => Origin::Adopted,
        None => Origin::Beside(map::SETTINGS),
    }
}

/// Version of the maps whose settings are pinned here; `None` when that cannot be read.
fn version(settings: &Path) -> Option<u32> {
    let store: Store<u32, Settings> = Store::new(MapData::from_pin(settings).ok()?).ok()?;
    store.get(&0).ok().flatten().map(|settings| settings.abi_version)
}

fn fresh_directory(path: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))?;
    for name in map::PINNED {
        remove(&path.join(name))?;
    }
    Ok(path.to_owned())
}
