//! Every map of the kernel programs. Types, names and capacities come from the ABI; nothing here has logic.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use enforcer_common::abi::{COUNTERS as COUNTER_COUNT, EventBudget, Holder, Settings, capacity};
use enforcer_common::address::Address;
use enforcer_common::flow::{Flow, FlowKey, Fragment, FragmentKey};
use enforcer_common::name::{Row, Symbols};
use enforcer_common::policy::{Endpoint, IdentityKey, Learned, LearnedKey, Rule, RuleKey, SocketPlace};
use enforcer_common::question::{Places, Question, WAYS};
use enforcer_common::stream::{Part, Stream, StreamKey};
use enforcer_common::tls::Hello;

#[map]
pub static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(capacity::ENDPOINTS, 0);
#[map]
pub static REVISIONS: Array<u32> = Array::with_max_entries(capacity::ENDPOINTS, 0);
#[map]
pub static IDENTITIES: LpmTrie<IdentityKey, u32> = LpmTrie::with_max_entries(capacity::IDENTITIES, 0);
#[map]
pub static RULES: LpmTrie<RuleKey, Rule> = LpmTrie::with_max_entries(capacity::RULES, 0);
#[map]
pub static LEARNED: LruHashMap<LearnedKey, Learned> = LruHashMap::with_max_entries(capacity::LEARNED, 0);
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(capacity::FLOWS, 0);
#[map]
pub static REFUSALS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(capacity::REFUSALS, 0);
#[map]
pub static REFUSING: Array<u32> = Array::with_max_entries(capacity::REFUSING, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment> =
    LruHashMap::with_max_entries(capacity::FRAGMENTS, 0);
#[map]
pub static RESOLVERS: HashMap<Address, u32> = HashMap::with_max_entries(capacity::RESOLVERS, 0);
#[map]
pub static ASKED: Array<Places> = Array::with_max_entries(capacity::QUESTIONS / WAYS, BPF_F_MMAPABLE);
#[map]
pub static QUESTIONS: Array<Question> = Array::with_max_entries(capacity::QUESTIONS, 0);
#[map]
pub static STREAMS: LruHashMap<StreamKey, Stream> = LruHashMap::with_max_entries(capacity::STREAMS, 0);
#[map]
pub static PARTS: LruHashMap<StreamKey, Part> = LruHashMap::with_max_entries(capacity::PARTS, 0);
/// What a new part begins as.
#[map]
pub static NO_PART: Array<Part> = Array::with_max_entries(1, 0);
#[map]
pub static HELLOS: LruHashMap<FlowKey, Hello> = LruHashMap::with_max_entries(capacity::HELLOS, 0);
#[map]
pub static NAME_SYMBOLS: Array<Symbols> = Array::with_max_entries(2, 0);
#[map]
pub static NAME_ROWS: Array<Row> = Array::with_max_entries(2 * capacity::NAME_STATES, 0);
#[map]
pub static NAME_CLASSES: Array<u32> = Array::with_max_entries(2 * capacity::NAME_STATES, 0);
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static HOLDER: Array<Holder> = Array::with_max_entries(1, 0);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);
#[map]
pub static EVENT_BUDGETS: Array<EventBudget> = Array::with_max_entries(capacity::ENDPOINTS, 0);
#[map]
pub static PEER_BUDGETS: Array<EventBudget> = Array::with_max_entries(capacity::PEER_BUDGETS, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(capacity::EVENTS, 0);
#[map]
pub static LEARN_EPOCHS: Array<u32> = Array::with_max_entries(capacity::ENDPOINTS, 0);
#[map]
pub static NAMESPACES: HashMap<u64, SocketPlace> = HashMap::with_max_entries(capacity::ENDPOINTS, 0);
/// What a run of a program at a socket holds: several of a CPU, because they may be preempted.
#[map]
pub static SOCKET_WORK: PerCpuArray<crate::socket::SocketWork> =
    PerCpuArray::with_max_entries(crate::socket::SLOTS, 0);
/// What one run of a program holds that does not fit its stack.
#[map]
pub static WORK: PerCpuArray<crate::work::Work> = PerCpuArray::with_max_entries(1, 0);
