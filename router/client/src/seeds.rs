//! Finding the cluster: any node that answers tells where all nodes and the catalogue are.

use crate::client::Inner;
use crate::error::{Error, SeedFailure};
use evenkeel_caller::Place;
use evenkeel_model::ShardId;
use evenkeel_wire::message::NodeAddress;

impl Inner {
    /// Asks the seeds, then the nodes known from before, in turn until one answers; returns
    /// where the catalogue is.
    pub(crate) async fn locate(&self, known: &[NodeAddress]) -> Result<Place, Error> {
        let known = known.iter().filter_map(|node| Place::find(known, node.id, ShardId(0)));
        let mut addresses = self.config.seeds.clone();
        addresses.extend(known.map(|place| place.address.to_string()));
        let mut seeds = Vec::new();
        for address in addresses {
            match self.ask_seed(&address).await {
                Ok(catalogue) => return Ok(catalogue),
                Err(reason) => seeds.push(SeedFailure { address, reason }),
            }
        }
        Err(Error::Seeds { seeds })
    }

    async fn ask_seed(&self, address: &str) -> Result<Place, String> {
        let connection = self.links.dialer().dial(address).await.map_err(|failure| failure.to_string())?;
        let greeting = connection.greeting().clone();
        let (node, shard) = (greeting.catalogue_node, greeting.catalogue_shard);
        let catalogue = Place::find(&greeting.nodes, node, shard).ok_or_else(|| {
            format!("the catalogue is said to be on node {node}, shard {shard}, which is not listed")
        })?;
        if let Some(own) = Place::find(&greeting.nodes, greeting.node, greeting.shard) {
            self.links.adopt(&own, connection);
        }
        Ok(catalogue)
    }
}
