//! Frames as they are on the wire: sends what no socket would, and keeps what arrived. Owns the raw sockets; what
//! the frames hold is [`shape`]'s.

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};

use crate::lab::Pod;
use crate::worker::{TICK, Worker};
use crate::{Journal, Namespace};

pub mod shape;

/// Sends frames at one end of a pair of interfaces.
pub struct Wire {
    sender: Box<dyn DataLinkSender>,
    /// Hardware addresses: of this end, then of the other.
    pub hardware: [[u8; 6]; 2],
}

impl Wire {
    /// Opens a pod's interface, from inside the pod.
    ///
    /// # Errors
    /// As [`Self::between`].
    pub fn open(pod: &Pod, node: &Namespace) -> Result<Self> {
        Self::between((&pod.namespace, "eth0"), (node, &pod.interface))
    }

    /// Opens the near one of two interfaces that are a pair.
    ///
    /// # Errors
    /// When an interface is gone, or a raw socket refused.
    pub fn between(near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<Self> {
        let hardware = [hardware(near.0, near.1)?, hardware(far.0, far.1)?];
        let (sender, _receiver) = raw(near.0, &interface(near.0, near.1)?)?;
        Ok(Self { sender, hardware })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// As `sendto(2)`.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.sender.send_to(frame, None).unwrap_or_else(|| Err(io::Error::other("the frame does not fit")))
    }
}

/// Keeps every frame that passes an interface, both directions, until dropped.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Journal<Vec<u8>>>,
    _worker: Worker,
}

impl Capture {
    /// Begins to keep frames.
    ///
    /// # Errors
    /// When the interface is gone, or a raw socket refused.
    pub fn start(namespace: &Namespace, name: &str) -> Result<Self> {
        let (_sender, mut receiver) = raw(namespace, &interface(namespace, name)?)?;
        let frames: Arc<Journal<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&frames);
        let worker = Worker::start(move |_stop| {
            kept.push(receiver.next()?.to_vec());
            Ok(())
        });
        Ok(Self { frames, _worker: worker })
    }

    /// Frames so far.
    pub fn frames(&self) -> &Journal<Vec<u8>> {
        &self.frames
    }

    /// How many frames hold `mark`.
    pub fn count(&self, mark: &[u8]) -> usize {
        self.frames.read(|all| all.iter().filter(|frame| holds(frame, mark)).count())
    }

    /// Waits for a frame that holds `mark`.
    ///
    /// # Errors
    /// When none comes.
    pub fn await_mark(&self, mark: &[u8]) -> Result<()> {
        let found = self.frames.wait(|all| all.iter().any(|frame| holds(frame, mark)).then_some(()));
        found.with_context(|| format!("no frame holds {:?}", String::from_utf8_lossy(mark)))
    }
}

/// The hardware address of an interface.
///
/// # Errors
/// When there is no such interface.
pub fn hardware(namespace: &Namespace, name: &str) -> Result<[u8; 6]> {
    Ok(interface(namespace, name)?.mac.unwrap_or_default().octets())
}

fn interface(namespace: &Namespace, name: &str) -> Result<NetworkInterface> {
    let all = namespace.enter(pnet_datalink::interfaces);
    let found = all.into_iter().find(|interface| interface.name == name);
    found.with_context(|| format!("no interface {name} in {}", namespace.name()))
}

fn raw(
    namespace: &Namespace,
    interface: &NetworkInterface,
) -> Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    let config = Config { read_timeout: Some(TICK), read_buffer_size: 1 << 16, ..Config::default() };
    match namespace.enter(|| pnet_datalink::channel(interface, config)) {
        Ok(Channel::Ethernet(sender, receiver)) => Ok((sender, receiver)),
        Ok(_) => bail!("no Ethernet on {}", interface.name),
        Err(error) => Err(error).with_context(|| format!("failed to open {} raw", interface.name)),
    }
}

fn holds(frame: &[u8], mark: &[u8]) -> bool {
    frame.windows(mark.len()).any(|part| part == mark)
}
