//! A kind as the API server has it, and then as it changes: listed, followed, and listed anew when the server no longer knows
//! the place in its history. Owns these steps, which are the same in each form of the API; what an object means is said
//! elsewhere.
//!
//! Told are the events of kube-runtime's watcher, and besides when the kind is followed again: of a kind of which nothing
//! changes, nobody would hear that what was wrong is over.

use futures_util::stream::{LocalBoxStream, Stream, StreamExt, unfold};
use kube::core::Status;
use kube::runtime::watcher::{Error, Event, Result};

/// How long a watch lasts, seconds: what kube-runtime asks for.
pub(crate) const LASTING: u32 = 290;
/// The place in history is gone.
pub(crate) const GONE: u16 = 410;

/// What is told of a kind.
pub(crate) enum News<K> {
    /// What happened to its objects.
    Event(Event<K>),
    /// From here on it is told as it changes.
    Followed,
}

/// An object of the API.
pub(crate) trait Record {
    /// Which state of the cluster it is of; empty where the server did not say.
    fn resource_version(&self) -> &str;
}

/// A part of a list.
pub(crate) enum Part<K> {
    /// An object.
    Object(K),
    /// The end, and which state of the cluster all of it is of.
    End(String),
}

/// What a watch tells.
pub(crate) enum Change<K> {
    /// An object is new, or another.
    There(K),
    /// It is gone.
    Gone(K),
    /// Everything up to this state was told.
    Bookmark(String),
    /// An object that cannot be read, so that nobody knows what changed.
    Unread(kube::Error),
    /// The server cannot go on.
    Failed(Box<Status>),
}

/// The objects of a list while they come.
pub(crate) type Parts<K> = LocalBoxStream<'static, kube::Result<Part<K>>>;
/// Changes as they come.
pub(crate) type Changes<K> = LocalBoxStream<'static, kube::Result<Change<K>>>;

/// A kind in a form that the API server speaks.
pub(crate) trait Form: 'static {
    /// What an object is read as.
    type Object: Record;

    /// Its objects as they are, by pages where the list did not arrive as a whole.
    fn list(&self, by_pages: bool) -> Parts<Self::Object>;

    /// What happens to them from a state on.
    async fn follow(&self, version: &str) -> kube::Result<Changes<Self::Object>>;
}

/// Where a watch begins.
const fn empty<K>() -> State<K> {
    State::Empty { by_pages: false }
}

/// Where the watch is.
enum State<K> {
    /// Nothing is known; the list will be asked for as a whole, or by pages.
    Empty { by_pages: bool },
    /// A list is read.
    Listing(Parts<K>),
    /// Everything up to this version was told.
    Listed(String),
    /// It is followed.
    Watching { version: String, changes: Changes<K> },
}

/// What a step comes to: news, if any, and where the watch is then.
type Step<K> = (Option<Result<News<K>>>, State<K>);

/// All objects of a kind: first as they are, then as they change.
pub(crate) fn watch<F: Form>(form: F) -> impl Stream<Item = Result<News<F::Object>>> {
    unfold((form, empty()), |(form, mut state)| async move {
        loop {
            let (news, next) = step(&form, state).await;
            state = next;
            if let Some(news) = news {
                return Some((news, (form, state)));
            }
        }
    })
}

async fn step<F: Form>(form: &F, state: State<F::Object>) -> Step<F::Object> {
    match state {
        State::Empty { by_pages } => (event(Event::Init), State::Listing(form.list(by_pages))),
        State::Listing(mut parts) => match parts.next().await {
            Some(Ok(Part::Object(object))) => (event(Event::InitApply(object)), State::Listing(parts)),
            Some(Ok(Part::End(version))) => end(version),
            Some(Err(error)) => (Some(Err(Error::InitialListFailed(error))), State::Empty { by_pages: true }),
            None => end(String::new()),
        },
        State::Listed(version) => match form.follow(&version).await {
            Ok(changes) => (Some(Ok(News::Followed)), State::Watching { version, changes }),
            // Told at once instead of in the first event.
            Err(kube::Error::Api(status)) if status.code == GONE => failed(status, version),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Listed(version)),
        },
        State::Watching { version, mut changes } => match changes.next().await {
            Some(Ok(change)) => read(change, version, changes),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
            None => (None, State::Listed(version)),
        },
    }
}

fn event<K>(event: Event<K>) -> Option<Result<News<K>>> {
    Some(Ok(News::Event(event)))
}

/// The list was read.
fn end<K>(version: String) -> Step<K> {
    match version.is_empty() {
        true => (Some(Err(Error::NoResourceVersion)), empty()),
        false => (event(Event::InitDone), State::Listed(version)),
    }
}

/// Reads one event of a watch.
fn read<K: Record>(change: Change<K>, version: String, changes: Changes<K>) -> Step<K> {
    let version_of = |object: &K| object.resource_version().to_owned();
    let (told, now) = match change {
        Change::There(object) => {
            let now = version_of(&object);
            (event(Event::Apply(object)), now)
        }
        Change::Gone(object) => {
            let now = version_of(&object);
            (event(Event::Delete(object)), now)
        }
        Change::Bookmark(now) => (None, now),
        Change::Unread(error) => return (Some(Err(Error::WatchFailed(error))), empty()),
        Change::Failed(status) => return failed(status, version),
    };
    match now.is_empty() {
        true => (Some(Err(Error::NoResourceVersion)), empty()),
        false => (told, State::Watching { version: now, changes }),
    }
}

/// The server says that it cannot go on.
fn failed<K>(status: Box<Status>, version: String) -> Step<K> {
    let state = if status.code == GONE { empty() } else { State::Listed(version) };
    (Some(Err(Error::WatchError(status))), state)
}

#[cfg(test)]
mod tests;
