//! The messages of the observer API, made from `proto/` by the build script. Owns nothing else.

macro_rules! package {
    ($name:ident, $doc:literal, $($lint:path),+) => {
        #[doc = $doc]
        #[expect($($lint,)+ reason = "generated code; docs/reference/observer.md describes the fields")]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

package!(flow, "Flows and filters.", missing_docs);
package!(
    observer,
    "The observer service.",
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason
);
package!(
    peer,
    "The peer service.",
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason
);
package!(relay, "Nodes.", missing_docs);
