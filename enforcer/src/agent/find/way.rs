//! The ways to a pod's interface. Owns what each is called and in which order they are heard; where they lead is said elsewhere.

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// What the network plugin, or the runtime by NRI, told when the pod was set up.
    Plugin,
    /// The results that CNI keeps.
    Results,
    /// What the container runtime answers.
    Runtime,
    /// A process of the pod's control group.
    Processes,
    /// The route to its address.
    Route,
}

impl Way {
    /// All of them, in the order in which they are heard.
    pub const ALL: [Self; 5] = [Self::Plugin, Self::Results, Self::Runtime, Self::Processes, Self::Route];

    /// Its name in flags and in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Results => "cni",
            Self::Runtime => "cri",
            Self::Processes => "processes",
            Self::Route => "route",
        }
    }

    /// What it is, within a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Plugin => "the network plugin",
            Self::Results => "the results of CNI",
            Self::Runtime => "the container runtime",
            Self::Processes => "its processes",
            Self::Route => "the route to its address",
        }
    }
}

/// What led to a pod's interface when it was last looked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Evidence {
    /// The ways that lead there.
    pub ways: Vec<Way>,
    /// What other ways say instead.
    pub doubts: Vec<String>,
}
