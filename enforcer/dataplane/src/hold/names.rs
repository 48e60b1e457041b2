//! The name automaton in force, as far as held answers have walked it. Owns copies of its rows, which are forgotten when
//! another one comes into force; the maps hold the rest.

use crate::maps::HoldMaps;
use enforcer_common::abi::{Settings, capacity};
use enforcer_common::name::{DEAD, Row, START, SYMBOLS, Symbols};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

/// Rows that are kept, half a MiB.
const MOST_ROWS: usize = 4096;

/// What was walked of the automaton so far.
pub(super) struct Names {
    /// How often another automaton had come into force when the first of it was read.
    flips: u64,
    symbols: Option<Symbols>,
    rows: HashMap<u16, Row>,
}

impl Default for Names {
    fn default() -> Self {
        Self { flips: u64::MAX, symbols: None, rows: HashMap::new() }
    }
}

impl Names {
    /// Runs the automaton in force over a name, lower case and backwards; 0 when no pattern matches.
    pub(super) fn class_of(&mut self, maps: &HoldMaps, settings: &Settings, text: &[u8]) -> io::Result<u32> {
        let flips = maps.flips.load(Ordering::Acquire);
        if flips != self.flips || self.rows.len() > MOST_ROWS {
            *self = Self { flips, ..Self::default() };
        }
        let half = settings.name_swaps & 1;
        let first_row = half * capacity::NAME_STATES;
        let symbols = match self.symbols {
            Some(symbols) => symbols,
            None => maps.name_symbols.get(&half)?.ok_or(io::ErrorKind::NotFound)?,
        };
        self.symbols = Some(symbols);
        let mut state = START;
        for character in text {
            let symbol = usize::from(symbols[usize::from(*character)]) & (SYMBOLS - 1);
            state = match self.rows.get(&state) {
                Some(row) => row[symbol],
                None => {
                    let row = maps.name_rows.get(&(first_row + u32::from(state)))?;
                    self.rows.entry(state).or_insert(row.ok_or(io::ErrorKind::NotFound)?)[symbol]
                }
            };
            if state == DEAD {
                return Ok(0);
            }
        }
        Ok(maps.name_classes.get(&(first_row + u32::from(state)))?.unwrap_or(0))
    }
}
