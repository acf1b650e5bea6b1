//! Finding the cluster: any node that answers tells where all nodes and the catalogue are.

use crate::client::Inner;
use crate::error::{Error, SeedFailure};
use evenkeel_caller::{Place, Replicas};
use evenkeel_model::ShardId;
use evenkeel_wire::message::NodeAddress;

impl Inner {
    /// Asks the seeds, then the nodes known from before, in turn until one answers; returns
    /// where the catalogue is.
    pub(crate) async fn locate(&self, known: &[NodeAddress]) -> Result<Replicas, Error> {
        let known = known.iter().filter_map(|node| Place::of(node, ShardId(0)));
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

    async fn ask_seed(&self, address: &str) -> Result<Replicas, String> {
        let connection = self.links.dialer().dial(address).await.map_err(|failure| failure.to_string())?;
        let greeting = connection.greeting().clone();
        let places = greeting.catalogue.iter();
        let places: Vec<Place> =
            places.filter_map(|&(node, shard)| Place::find(&greeting.nodes, node, shard)).collect();
        if places.is_empty() {
            return Err("it knows no node that holds the catalogue".to_owned());
        }
        if let Some(own) = Place::find(&greeting.nodes, greeting.node, greeting.shard) {
            self.links.adopt(&own, connection);
        }
        Ok(Replicas::new(places))
    }
}
