//! The door for tests and benchmarks: runs a loaded program on a packet without an interface's traffic. Sends nothing.

use crate::clock::{self, Ticks};
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::load;
use crate::sys::{self, RunRequest};
use aya::programs::TcAttachType;
use enforcer_common::abi::program;
use std::os::fd::AsFd;

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// A program of the object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Program {
    /// What the workload sends.
    FromWorkload,
    /// What the workload receives.
    ToWorkload,
    /// Passes everything: the yardstick of benchmarks. Loaded when it is first run.
    Empty,
    /// Writes the kernel's clocks into its packet. Loaded when it is first run.
    Clock,
    /// [`Program::FromWorkload`] with a new flow at each run. Loaded when it is first run.
    Fresh,
    /// [`Program::ToWorkload`] after the question asked last on the same CPU was asked again. Loaded when it is first run.
    Answered,
    /// Only asks again. Loaded when it is first run.
    Asked,
}

impl Program {
    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromWorkload => program::FROM_WORKLOAD,
            Self::ToWorkload => program::TO_WORKLOAD,
            Self::Empty => program::EMPTY,
            Self::Clock => program::CLOCK,
            Self::Fresh => program::FRESH,
            Self::Answered => program::ANSWERED,
            Self::Asked => program::ASKED,
        }
    }
}

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub struct TestPacket<'a> {
    /// The packet from its Ethernet header on, at least 14 octets.
    pub octets: &'a [u8],
    /// Interface index the program sees; an interface of this network namespace.
    pub interface: u32,
    /// How often the program runs on it; 1 for tests.
    pub repeat: u32,
}

/// What a run gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestOutcome {
    /// The program's last return value, a `TC_ACT_*`.
    pub code: i32,
    /// The packet as the program left it.
    pub octets: Vec<u8>,
    /// Nanoseconds per run, mean over all runs.
    pub duration_ns: u32,
}

/// What the kernel says of a loaded program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramInfo {
    /// Its name in the object.
    pub name: &'static str,
    /// Its number in the kernel.
    pub id: u32,
    /// Instructions the verifier walked; `None` before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Size after the verifier's rewriting, octets.
    pub translated_octets: Option<u32>,
    /// Size of the machine code, octets; 0 without a JIT compiler.
    pub jited_octets: u32,
}

impl Dataplane {
    /// The programs that are loaded.
    pub fn programs(&mut self) -> Result<Vec<ProgramInfo>, Error> {
        let mut all = Vec::new();
        for name in [Program::FromWorkload, Program::ToWorkload, Program::Empty].map(Program::name) {
            let classifier = load::classifier(&mut self.object, name)?;
            if classifier.fd().is_err() {
                continue;
            }
            let failed = |source| Error::Program { program: name, source: Box::new(source) };
            let info = classifier.info().map_err(failed)?;
            all.push(ProgramInfo {
                name,
                id: info.id(),
                verified_instructions: info.verified_instruction_count(),
                translated_octets: info.size_translated(),
                jited_octets: info.size_jitted(),
            });
        }
        Ok(all)
    }

    /// Attaches the empty program in both directions of an interface: the yardstick of live benchmarks. It stays
    /// until this data plane is dropped.
    ///
    /// # Errors
    /// When the verifier or the interface refuses it.
    pub fn attach_empty(&mut self, interface: &str) -> Result<(), Error> {
        let failed = |source| Error::Program { program: program::EMPTY, source: Box::new(source) };
        self.ensure_loaded(program::EMPTY)?;
        let empty = load::classifier(&mut self.object, program::EMPTY)?;
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            empty.attach(interface, direction).map_err(failed)?;
        }
        Ok(())
    }

    /// How the kernel's ticks relate to the monotonic clock; `None` where that cannot be told.
    pub(crate) fn ticks(&mut self) -> Result<Option<Ticks>, Error> {
        let packet = TestPacket { octets: &[0; 64], interface: LOOPBACK, repeat: 1 };
        let told = self.test_run(Program::Clock, &packet)?.octets;
        let number = |at: usize| told.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        Ok(number(0).zip(number(8)).and_then(|(count, now)| clock::ticks(count, now)))
    }

    /// Runs a program by `BPF_PROG_TEST_RUN`.
    pub fn test_run(&mut self, program: Program, packet: &TestPacket<'_>) -> Result<TestOutcome, Error> {
        let name = program.name();
        self.ensure_loaded(name)?;
        let classifier = load::classifier(&mut self.object, name)?;
        let fd =
            classifier.fd().map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
        let TestPacket { octets, interface, repeat } = *packet;
        let request = RunRequest { packet: octets, interface, segment: 0, repeat };
        let (code, octets, duration_ns) =
            sys::run(fd.as_fd(), &request).map_err(|source| Error::TestRun { program: name, source })?;
        Ok(TestOutcome { code: code as i32, octets, duration_ns })
    }

    fn ensure_loaded(&mut self, name: &'static str) -> Result<(), Error> {
        if load::classifier(&mut self.object, name)?.fd().is_ok() {
            return Ok(());
        }
        load::load_programs(&mut self.object, &[name])
    }
}
