//! What one member says of itself. Ask a client of one endpoint: with several, any may answer.

use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, StatusRequest, StatusResponse,
    maintenance_client::MaintenanceClient,
};

use crate::{Client, error::Error, retry::Policy::Repeatable};

impl Client {
    /// The member's version, sizes, leader and progress.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        let request = StatusRequest {};
        self.call("/etcdserverpb.Maintenance/Status", Repeatable, request, |channel, request| {
            let mut maintenance = MaintenanceClient::new(channel);
            async move { maintenance.status(request).await }
        })
        .await
    }

    /// The hash of the member's keys up to a revision; 0 means its current one.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Error> {
        let request = HashKvRequest { revision };
        self.call("/etcdserverpb.Maintenance/HashKV", Repeatable, request, |channel, request| {
            let mut maintenance = MaintenanceClient::new(channel);
            async move { maintenance.hash_kv(request).await }
        })
        .await
    }

    /// The alarms that are raised.
    pub async fn alarms(&self) -> Result<AlarmResponse, Error> {
        let request = AlarmRequest::default();
        self.call("/etcdserverpb.Maintenance/Alarm", Repeatable, request, |channel, request| {
            let mut maintenance = MaintenanceClient::new(channel);
            async move { maintenance.alarm(request).await }
        })
        .await
    }
}
