//! Which server each flow asked for by TLS, from the event that tells it until the flow's end. Owns the bound on how many
//! are kept; never decides.

use std::collections::VecDeque;
use std::sync::Arc;

use enforcer_common::abi::capacity;
use enforcer_common::flow::FlowKey;
use enforcer_core::record::Event;

/// Asked for every record, and most have none.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::quality::RandomState>;

/// Names that are kept: as many as the kernel keeps.
const MOST: usize = capacity::HELLOS as usize;

/// Server names by flow, the oldest out first.
#[derive(Default, Debug)]
pub struct ServerNames {
    names: HashMap<FlowKey, Arc<str>>,
    /// Every flow that has a name, and some that had one, in the order in which they were told.
    told: VecDeque<FlowKey>,
}

impl ServerNames {
    /// Notes what a flow asks for.
    pub fn note(&mut self, flow: FlowKey, name: Arc<str>) {
        self.names.insert(flow, name);
        self.told.push_back(flow);
        while self.told.len() > MOST {
            let oldest = self.told.pop_front().expect("there are more than none");
            self.names.remove(&oldest);
        }
    }

    /// What a flow asked for that this is told of. A flow that begins has not asked yet, one that ended is forgotten.
    pub fn of(&mut self, flow: &FlowKey, event: Event) -> Option<Arc<str>> {
        match event {
            Event::Admitted => {
                self.names.remove(flow);
                None
            }
            Event::Ended => self.names.remove(flow),
            Event::Cut | Event::Refused | Event::Dropped => self.names.get(flow).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_name_goes_with_its_flow_and_no_other() {
        let (flow, _) = testing::flow(|_| ());
        let other = FlowKey { local_port: 1, ..flow };
        let mut names = ServerNames::default();
        names.note(flow, "a.example".into());
        assert_eq!(names.of(&other, Event::Cut), None);
        for event in [Event::Cut, Event::Refused, Event::Ended] {
            assert_eq!(names.of(&flow, event).as_deref(), Some("a.example"), "{event:?}");
        }
        assert_eq!(names.of(&flow, Event::Ended), None);
        names.note(flow, "b.example".into());
        assert_eq!(names.of(&flow, Event::Admitted), None);
        assert_eq!(names.of(&flow, Event::Cut), None, "another flow has the same ports");
    }

    #[test]
    fn the_oldest_make_room() {
        let (flow, _) = testing::flow(|_| ());
        let numbered = |number: usize| FlowKey { interface: number as u32, ..flow };
        let mut names = ServerNames::default();
        (0..=MOST).for_each(|number| names.note(numbered(number), "a.example".into()));
        assert_eq!(names.of(&numbered(0), Event::Cut), None);
        assert!(names.of(&numbered(1), Event::Cut).is_some());
        assert_eq!((names.names.len(), names.told.len()), (MOST, MOST));
    }
}
