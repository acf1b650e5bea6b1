//! Which operation a request is for.

/// The version of the API that every target begins with.
const API: &str = "DynamoDB_20120810.";

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// An operation of the DynamoDB API that is there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $name),*
        }

        impl Operation {
            /// All operations.
            pub const ALL: &[Operation] = &[$(Operation::$name),*];

            /// The operation's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => stringify!($name)),*
                }
            }
        }
    };
}

operations!(
    /// Creates a table.
    CreateTable,
    /// Describes a table.
    DescribeTable,
    /// Lists tables.
    ListTables,
    /// Changes what a table is like.
    UpdateTable,
    /// Deletes a table.
    DeleteTable,
    /// Replaces an item.
    PutItem,
    /// Reads an item.
    GetItem,
    /// Changes an item, or makes it.
    UpdateItem,
    /// Deletes an item.
    DeleteItem,
    /// Reads up to 100 items.
    BatchGetItem,
    /// Replaces and deletes up to 25 items.
    BatchWriteItem,
    /// Reads consecutive items of one partition key.
    Query,
    /// Reads all items.
    Scan,
    /// Sets tags of a table.
    TagResource,
    /// Removes tags of a table.
    UntagResource,
    /// Lists tags of a table.
    ListTagsOfResource,
    /// Tells how much throughput may be set aside.
    DescribeLimits,
    /// Tells where to send requests.
    DescribeEndpoints,
    /// Tells whether items of a table expire.
    DescribeTimeToLive,
    /// Tells whether a table is backed up continuously.
    DescribeContinuousBackups,
);

impl Operation {
    /// The operation that a target header names, such as `DynamoDB_20120810.GetItem`.
    pub fn from_target(target: &str) -> Option<Operation> {
        let name = target.strip_prefix(API)?;
        Operation::ALL.iter().copied().find(|operation| operation.name() == name)
    }
}
