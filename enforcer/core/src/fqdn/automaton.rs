//! Compiles name patterns to the automaton that the kernel walks over a reversed name.
//!
//! Patterns become a trie over their reversed tokens, so that shared suffixes are shared states; the subset
//! construction makes it deterministic. Owns numbers of name classes; never decides anything about a class.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use enforcer_common::name::{DEAD, Row, SYMBOLS, Symbols};
use enforcer_common::policy::NAME_BIT;

use super::Pattern;
use crate::number;
use crate::plan::Automaton;

/// Most states that a `u16` can number.
pub const MAX_STATES: usize = 1 << 16;

/// More states than there is room for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{patterns} name patterns need more than the {capacity} states there is room for")]
pub struct TooManyStates {
    /// How many patterns were compiled.
    pub patterns: usize,
    /// How many states there is room for.
    pub capacity: usize,
}

/// An automaton and what its classes stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// The automaton.
    pub automaton: Automaton,
    /// Every class some name can have, with the sorted patterns it stands for.
    pub patterns: BTreeMap<u32, Vec<String>>,
}

/// The automaton of these patterns, with at most `capacity` states.
///
/// # Errors
/// [`TooManyStates`] when they do not fit.
pub fn compile(patterns: &BTreeSet<Pattern>, capacity: usize) -> Result<Names, TooManyStates> {
    let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    let (symbols, alphabet) = alphabet(&texts);
    let trie = Trie::new(&texts, &symbols);
    let capacity = capacity.min(MAX_STATES);
    let (rows, accepted) =
        determine(&trie, alphabet, capacity).ok_or(TooManyStates { patterns: texts.len(), capacity })?;
    let numbers = class_numbers(&accepted, &texts);
    let classes = accepted.iter().map(|set| numbers.get(set).copied().unwrap_or(0)).collect();
    let names = |set: &Vec<u32>| set.iter().map(|pattern| texts[*pattern as usize].to_owned()).collect();
    let patterns = numbers.iter().map(|(set, number)| (*number, names(set))).collect();
    Ok(Names { automaton: Automaton { symbols, rows, classes }, patterns })
}

/// One element of a reversed pattern.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    /// This symbol.
    Symbol(u8),
    /// One octet of a label.
    Octet,
    /// Any number of octets of a label.
    Inside,
    /// One or more octets of any kind: whole labels in front.
    Front,
}

/// Symbol of everything that no pattern spells out.
const OTHER: u8 = 0;
/// Symbol of the dot.
const DOT: u8 = 1;

/// Numbers the characters that patterns use, the dot first; capital letters share the number of the small ones.
/// Returns how many symbols are in use, [`OTHER`] included.
fn alphabet(texts: &[&str]) -> (Symbols, usize) {
    let used: BTreeSet<u8> =
        texts.iter().flat_map(|text| text.bytes()).filter(|octet| *octet != b'*').collect();
    let mut symbols = [OTHER; 256];
    symbols[usize::from(b'.')] = DOT;
    let mut next = DOT + 1;
    for octet in used.into_iter().filter(|octet| *octet != b'.') {
        symbols[usize::from(octet)] = next;
        symbols[usize::from(octet.to_ascii_uppercase())] = next;
        next += 1;
    }
    let count = usize::from(next);
    assert!(count <= SYMBOLS, "patterns use at most letters, digits, hyphen, underscore and dot");
    (symbols, count)
}

/// The tokens of a pattern from its end to its beginning.
fn tokens(text: &str, symbols: &Symbols) -> Vec<Token> {
    let labels: Vec<&str> = text.split('.').collect();
    let mut tokens = Vec::new();
    for (index, label) in labels.iter().enumerate().rev() {
        match (*label, index) {
            ("*", 0) => tokens.push(Token::Front),
            ("*", _) => tokens.extend([Token::Octet, Token::Inside]),
            (label, _) => tokens.extend(label.bytes().rev().map(|octet| match octet {
                b'*' => Token::Inside,
                octet => Token::Symbol(symbols[usize::from(octet)]),
            })),
        }
        if index > 0 {
            tokens.push(Token::Symbol(DOT));
        }
    }
    tokens
}

/// A node of the trie: what leaves it and which patterns end at it.
#[derive(Default)]
struct Node {
    next: BTreeMap<Token, u32>,
    patterns: Vec<u32>,
    stays: Stays,
}

/// Over which octets a node stays in force.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Stays {
    #[default]
    None,
    InLabel,
    Always,
}

struct Trie {
    nodes: Vec<Node>,
}

const ROOT: u32 = 0;

impl Trie {
    fn new(texts: &[&str], symbols: &Symbols) -> Self {
        let mut trie = Self { nodes: vec![Node::default()] };
        for (pattern, text) in (0u32..).zip(texts) {
            let end = tokens(text, symbols).into_iter().fold(ROOT, |node, token| trie.child(node, token));
            trie.nodes[end as usize].patterns.push(pattern);
        }
        trie
    }

    fn child(&mut self, node: u32, token: Token) -> u32 {
        if let Some(child) = self.nodes[node as usize].next.get(&token) {
            return *child;
        }
        let child = u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes fit into memory");
        let stays = match token {
            Token::Symbol(_) | Token::Octet => Stays::None,
            Token::Inside => Stays::InLabel,
            Token::Front => Stays::Always,
        };
        self.nodes.push(Node { stays, ..Node::default() });
        self.nodes[node as usize].next.insert(token, child);
        child
    }

    /// Adds what is in force without reading anything, and brings the set into its one order.
    fn close(&self, set: &mut Vec<u32>) {
        let mut at = 0;
        while at < set.len() {
            set.extend(self.nodes[set[at] as usize].next.get(&Token::Inside));
            at += 1;
        }
        set.sort_unstable();
        set.dedup();
    }

    /// The sets that follow a set, by symbol.
    fn step(&self, set: &[u32], alphabet: usize) -> Vec<Vec<u32>> {
        let mut next = vec![Vec::new(); alphabet];
        let dot = usize::from(DOT);
        for &index in set {
            let node = &self.nodes[index as usize];
            let mut spread = |target: u32, over_dot: bool| {
                let symbols = (0..alphabet).filter(|symbol| over_dot || *symbol != dot);
                symbols.for_each(|symbol| next[symbol].push(target));
            };
            match node.stays {
                Stays::None => {}
                Stays::InLabel => spread(index, false),
                Stays::Always => spread(index, true),
            }
            node.next.get(&Token::Octet).into_iter().for_each(|child| spread(*child, false));
            node.next.get(&Token::Front).into_iter().for_each(|child| spread(*child, true));
            for (token, child) in &node.next {
                if let Token::Symbol(symbol) = token {
                    next[usize::from(*symbol)].push(*child);
                }
            }
        }
        next.iter_mut().for_each(|set| self.close(set));
        next
    }

    /// The patterns that end in a set, sorted.
    fn accepted(&self, set: &[u32]) -> Vec<u32> {
        let mut patterns: Vec<u32> =
            set.iter().flat_map(|node| &self.nodes[*node as usize].patterns).copied().collect();
        patterns.sort_unstable();
        patterns
    }
}

/// The subset construction: rows, and the patterns accepted in each state. `None` when `capacity` is exceeded.
fn determine(trie: &Trie, alphabet: usize, capacity: usize) -> Option<(Vec<Row>, Vec<Vec<u32>>)> {
    let mut start = vec![ROOT];
    trie.close(&mut start);
    let mut rows: Vec<Row> = vec![[DEAD; SYMBOLS]; 2];
    let mut accepted = vec![Vec::new(), trie.accepted(&start)];
    let mut waiting = VecDeque::from([start.clone()]);
    let mut numbers: HashMap<Vec<u32>, u16> = HashMap::from([(Vec::new(), DEAD), (start, 1)]);
    let mut at = 1;
    while let Some(set) = waiting.pop_front() {
        for (symbol, next) in trie.step(&set, alphabet).into_iter().enumerate() {
            let number = match numbers.get(&next) {
                Some(number) => *number,
                None => {
                    let number = u16::try_from(rows.len()).ok().filter(|_| rows.len() < capacity)?;
                    rows.push([DEAD; SYMBOLS]);
                    accepted.push(trie.accepted(&next));
                    waiting.push_back(next.clone());
                    numbers.insert(next, number);
                    number
                }
            };
            rows[at][symbol] = number;
        }
        at += 1;
    }
    Some((rows, accepted))
}

/// A number for every set of patterns that some state accepts: stable as long as the set is the same.
fn class_numbers(accepted: &[Vec<u32>], texts: &[&str]) -> BTreeMap<Vec<u32>, u32> {
    let sets: BTreeSet<&Vec<u32>> = accepted.iter().filter(|set| !set.is_empty()).collect();
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    for set in sets {
        let names = set.iter().map(|pattern| texts[*pattern as usize]);
        let number = number::free(number::hash(names), NAME_BIT - 1, &mut taken);
        numbers.insert(set.clone(), NAME_BIT | number);
    }
    numbers
}

#[cfg(test)]
mod tests;
