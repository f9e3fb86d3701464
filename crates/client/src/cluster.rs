//! The cluster's members.

use proto::etcdserverpb::{MemberListRequest, MemberListResponse, cluster_client::ClusterClient};

use crate::{Client, error::Error, retry::Policy::Repeatable};

impl Client {
    /// The members; the cluster's view if `linearizable`, else that of the member that is asked.
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        self.call("/etcdserverpb.Cluster/MemberList", Repeatable, request, |channel, request| {
            let mut cluster = ClusterClient::new(channel);
            async move { cluster.member_list(request).await }
        })
        .await
    }
}
