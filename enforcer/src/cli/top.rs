//! `enforcer top`: who talks most, what is refused, which names are used; live on a terminal, or once. Owns the loop between
//! the agent's records, keys and the screen; what is counted is in [`sums`], what is seen in [`view`].

pub mod sums;
pub mod text;
pub mod view;

use std::io::{IsTerminal, Write as _};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use enforcer_core::filter::{Filter, parse_since};
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::{Output, SocketArgs};
use crate::api::client::{self, Answer};
use crate::api::{FlowsRequest, Request, Response};
use sums::{Order, Sums};
use view::State;

/// Pause between two looks at keys and records.
const TICK: Duration = Duration::from_millis(200);
/// Records that wait to be counted; the agent tells what does not fit.
const WAITING: usize = 1024;

/// Flags of `enforcer top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Print the tables of the stored records once, without a terminal.
    #[arg(long)]
    pub once: bool,
    /// Count records from this time on: a duration like `5m`, or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Namespace of either end; repeatable.
    #[arg(long, short)]
    pub namespace: Vec<String>,
    /// Rows of each table that are printed once.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub rows: usize,
    /// How the answer looks; JSON is printed once.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked, it ends, or there is no terminal to draw on.
pub fn run(args: &TopArgs, now: Timestamp) -> anyhow::Result<()> {
    let since = args.since.as_deref().map(|text| parse_since(text, now)).transpose()?;
    let is_once = args.once || args.output == Output::Json;
    if !is_once && !std::io::stdout().is_terminal() {
        bail!("standard output is no terminal; --once prints the tables");
    }
    let filter = Filter { since, namespaces: args.namespace.clone(), ..Filter::default() };
    let request = FlowsRequest { follow: !is_once, last: None, filter };
    let answer = client::ask(&args.socket.socket, Request::Flows(request))?;
    if is_once { once(answer, args) } else { live(answer) }
}

/// Counts what is stored and prints it.
fn once(mut answer: Answer, args: &TopArgs) -> anyhow::Result<()> {
    let mut sums = Sums::default();
    while let Some(response) = answer.line()? {
        sums.take(&response);
    }
    let report = sums.report(args.rows, Order::Most);
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => text::lines(&report),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// Draws until a key ends it or the agent does.
fn live(answer: Answer) -> anyhow::Result<()> {
    let responses = listen(answer);
    let mut terminal = ratatui::try_init()?;
    let result = turns(&mut terminal, &responses);
    ratatui::try_restore()?;
    result
}

fn turns(
    terminal: &mut DefaultTerminal,
    responses: &Receiver<Result<Response, client::Error>>,
) -> anyhow::Result<()> {
    let (mut sums, mut state) = (Sums::default(), State::default());
    while !state.is_over() {
        loop {
            match responses.try_recv() {
                Ok(Ok(response)) => sums.take(&response),
                Ok(Err(error)) => return Err(error.into()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("the agent ended"),
            }
        }
        state.look(&mut sums);
        terminal.draw(|frame| view::draw(frame, &state))?;
        if event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            state.press(key, &mut sums);
        }
    }
    Ok(())
}

/// Hears the agent on a thread of its own, so that keys never wait for it.
fn listen(mut answer: Answer) -> Receiver<Result<Response, client::Error>> {
    let (heard, responses) = mpsc::sync_channel(WAITING);
    thread::spawn(move || {
        while let Some(response) = answer.line().transpose() {
            let is_last = response.is_err();
            if heard.send(response).is_err() || is_last {
                return;
            }
        }
    });
    responses
}
