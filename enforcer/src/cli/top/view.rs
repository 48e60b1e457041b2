//! The screen of `enforcer top`: which table is shown, how, and what keys do to that. Owns the layout; never counts.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table as Widget, Tabs};

use super::sums::{Order, Report, Sums};
use super::text::{self, Table};

/// Rows that are kept for scrolling.
const ROWS: usize = 1_000;
/// Rows that a page key moves.
const PAGE: usize = 20;
const KEYS: &str = " Tab table  ↑↓ scroll  s order  p pause  c clear  q quit";

/// What is shown.
#[derive(Default, Debug)]
pub struct State {
    table: usize,
    offset: usize,
    order: Order,
    is_paused: bool,
    is_over: bool,
    report: Report,
}

impl State {
    /// True once the reader wants to leave.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes what was counted, unless it is paused.
    pub fn look(&mut self, sums: &mut Sums) {
        if !self.is_paused {
            self.report = sums.report(ROWS, self.order);
        }
    }

    /// What a key does.
    pub fn press(&mut self, key: KeyEvent, sums: &mut Sums) {
        let rows = text::tables(&self.report)[self.table].rows.len();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => self.is_over = true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.is_over = true,
            KeyCode::Tab | KeyCode::Right => self.turn_to((self.table + 1) % 3),
            KeyCode::BackTab | KeyCode::Left => self.turn_to((self.table + 2) % 3),
            KeyCode::Char(digit @ '1'..='3') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Down => self.offset = (self.offset + 1).min(rows.saturating_sub(1)),
            KeyCode::Up => self.offset = self.offset.saturating_sub(1),
            KeyCode::PageDown => self.offset = (self.offset + PAGE).min(rows.saturating_sub(1)),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(PAGE),
            KeyCode::Home => self.offset = 0,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                self.order = if self.order == Order::Most { Order::Latest } else { Order::Most };
                self.report = sums.report(ROWS, self.order);
            }
            KeyCode::Char('c') => {
                sums.clear();
                self.report = Report::default();
                self.offset = 0;
            }
            _ => {}
        }
    }

    fn turn_to(&mut self, table: usize) {
        (self.table, self.offset) = (table, 0);
    }
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let tables = text::tables(&state.report);
    frame.render_widget(headline(state), head);
    let titles = tables.each_ref().map(|table| format!("{} ({})", table.title, table.rows.len()));
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Tabs::new(titles).select(state.table).highlight_style(chosen), tabs);
    draw_table(frame, body, &tables[state.table], state.offset);
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Line::styled(KEYS, dim), foot);
}

fn headline(state: &State) -> Line<'static> {
    let mut spans = vec![
        Span::styled(" enforcer top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {}", text::summary(&state.report))),
        Span::raw(match state.order {
            Order::Most => "  most first",
            Order::Latest => "  latest first",
        }),
    ];
    if state.is_paused {
        spans.push(Span::styled("  PAUSED", Style::new().fg(Color::Yellow)));
    }
    Line::from(spans)
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, table: &Table, offset: usize) {
    let columns = 0..table.heads.len();
    let widths = columns.clone().map(|column| {
        // Where there is not room for all, a last column of text is cut first.
        if column + 1 == table.heads.len() && !table.is_number(column) {
            return Constraint::Fill(1);
        }
        Constraint::Length(u16::try_from(table.width(column)).unwrap_or(u16::MAX))
    });
    let aligned = |column: usize, text: String| {
        let line = Line::from(text);
        Cell::from(if table.is_number(column) { line.right_aligned() } else { line })
    };
    let heads = columns.map(|column| aligned(column, table.heads[column].trim().to_owned()));
    let shown = table.rows.iter().skip(offset).take(area.height.into());
    let rows = shown.map(|row| {
        let cells = row.iter().enumerate().map(|(column, cell)| aligned(column, cell.clone()));
        Row::new(cells).style(style(table, row))
    });
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let widget = Widget::new(rows, widths).header(Row::new(heads).style(bold)).column_spacing(2);
    frame.render_widget(widget, area);
}

/// Rows that show refusals are red.
fn style(table: &Table, row: &[String]) -> Style {
    let denied = table.heads.iter().position(|head| *head == " denied");
    match denied {
        Some(column) if row[column] != "0" => Style::new().fg(Color::Red),
        None => Style::new().fg(Color::Red),
        Some(_) => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sums::tests::example;
    use super::*;

    /// The screen after these keys, without spaces at the ends of lines.
    fn screen(state: &State) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(72, 6)).expect("a terminal");
        terminal.draw(|frame| draw(frame, state)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let line = |y| (0..72).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..6).map(line).collect()
    }

    fn press(state: &mut State, sums: &mut Sums, code: KeyCode) {
        state.press(code.into(), sums);
    }

    #[test]
    fn each_table_has_a_screen() {
        let (mut state, mut sums) = (State::default(), example());
        state.look(&mut sums);
        assert_eq!(
            screen(&state),
            [
                " enforcer top  4 records, 3 missing  most first",
                " Talkers (1) │ Denied (1) │ Names (1)",
                "workload       flows  denied  would deny  packets    octets",
                "update/update      3       2           0       18  902.0 kB",
                "",
                KEYS,
            ]
        );
        press(&mut state, &mut sums, KeyCode::Tab);
        assert_eq!(
            screen(&state)[2..4],
            [
                "source         destination  service  direction  flows  by",
                "update/update  github.com   tcp/443  EGRESS         2  default/Tier defa",
            ]
        );
        press(&mut state, &mut sums, KeyCode::Char('3'));
        assert_eq!(
            screen(&state)[2..4],
            [
                "name        workload       flows  denied    octets",
                "github.com  update/update      3       2  902.0 kB",
            ]
        );
    }

    #[test]
    fn refusals_are_red() {
        let (mut state, mut sums) = (State::default(), example());
        state.look(&mut sums);
        let mut terminal = Terminal::new(TestBackend::new(72, 6)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &state)).expect("drawn");
        assert_eq!(terminal.backend().buffer()[(0, 3)].fg, Color::Red);
    }

    #[test]
    fn keys_pause_order_clear_and_quit() {
        let (mut state, mut sums) = (State::default(), example());
        state.look(&mut sums);
        press(&mut state, &mut sums, KeyCode::Char('p'));
        let more = crate::testing::record(|r| r.source.workload = Some("other".into()));
        sums.take(&crate::api::Response::Flow(Box::new(more)));
        state.look(&mut sums);
        assert!(screen(&state)[0].ends_with("4 records, 3 missing  most first  PAUSED"));
        press(&mut state, &mut sums, KeyCode::Char('s'));
        assert!(screen(&state)[0].ends_with("5 records, 3 missing  latest first  PAUSED"));
        for _ in 0..5 {
            press(&mut state, &mut sums, KeyCode::Down);
        }
        assert!(screen(&state)[3].starts_with("update/update"), "the last row stays on the screen");
        press(&mut state, &mut sums, KeyCode::Char('c'));
        assert!(screen(&state)[0].contains("0 records"));
        assert!(!state.is_over());
        press(&mut state, &mut sums, KeyCode::Char('q'));
        assert!(state.is_over());
    }
}
