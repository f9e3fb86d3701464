// Written by `cargo xtask codegen` from proto/*.proto.

/// Every path of the JSON API.
pub static ROUTES: &[Route] = &[
    Route { http: "/v3/kv/range", grpc: "/etcdserverpb.KV/Range", input: &ETCDSERVERPB_RANGE_REQUEST, output: &ETCDSERVERPB_RANGE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/put", grpc: "/etcdserverpb.KV/Put", input: &ETCDSERVERPB_PUT_REQUEST, output: &ETCDSERVERPB_PUT_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/deleterange", grpc: "/etcdserverpb.KV/DeleteRange", input: &ETCDSERVERPB_DELETE_RANGE_REQUEST, output: &ETCDSERVERPB_DELETE_RANGE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/txn", grpc: "/etcdserverpb.KV/Txn", input: &ETCDSERVERPB_TXN_REQUEST, output: &ETCDSERVERPB_TXN_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/compaction", grpc: "/etcdserverpb.KV/Compact", input: &ETCDSERVERPB_COMPACTION_REQUEST, output: &ETCDSERVERPB_COMPACTION_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/watch", grpc: "/etcdserverpb.Watch/Watch", input: &ETCDSERVERPB_WATCH_REQUEST, output: &ETCDSERVERPB_WATCH_RESPONSE, client_streams: true, server_streams: true },
    Route { http: "/v3/lease/grant", grpc: "/etcdserverpb.Lease/LeaseGrant", input: &ETCDSERVERPB_LEASE_GRANT_REQUEST, output: &ETCDSERVERPB_LEASE_GRANT_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/lease/revoke", grpc: "/etcdserverpb.Lease/LeaseRevoke", input: &ETCDSERVERPB_LEASE_REVOKE_REQUEST, output: &ETCDSERVERPB_LEASE_REVOKE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/lease/revoke", grpc: "/etcdserverpb.Lease/LeaseRevoke", input: &ETCDSERVERPB_LEASE_REVOKE_REQUEST, output: &ETCDSERVERPB_LEASE_REVOKE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/lease/keepalive", grpc: "/etcdserverpb.Lease/LeaseKeepAlive", input: &ETCDSERVERPB_LEASE_KEEP_ALIVE_REQUEST, output: &ETCDSERVERPB_LEASE_KEEP_ALIVE_RESPONSE, client_streams: true, server_streams: true },
    Route { http: "/v3/lease/timetolive", grpc: "/etcdserverpb.Lease/LeaseTimeToLive", input: &ETCDSERVERPB_LEASE_TIME_TO_LIVE_REQUEST, output: &ETCDSERVERPB_LEASE_TIME_TO_LIVE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/lease/timetolive", grpc: "/etcdserverpb.Lease/LeaseTimeToLive", input: &ETCDSERVERPB_LEASE_TIME_TO_LIVE_REQUEST, output: &ETCDSERVERPB_LEASE_TIME_TO_LIVE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/lease/leases", grpc: "/etcdserverpb.Lease/LeaseLeases", input: &ETCDSERVERPB_LEASE_LEASES_REQUEST, output: &ETCDSERVERPB_LEASE_LEASES_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/kv/lease/leases", grpc: "/etcdserverpb.Lease/LeaseLeases", input: &ETCDSERVERPB_LEASE_LEASES_REQUEST, output: &ETCDSERVERPB_LEASE_LEASES_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/cluster/member/add", grpc: "/etcdserverpb.Cluster/MemberAdd", input: &ETCDSERVERPB_MEMBER_ADD_REQUEST, output: &ETCDSERVERPB_MEMBER_ADD_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/cluster/member/remove", grpc: "/etcdserverpb.Cluster/MemberRemove", input: &ETCDSERVERPB_MEMBER_REMOVE_REQUEST, output: &ETCDSERVERPB_MEMBER_REMOVE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/cluster/member/update", grpc: "/etcdserverpb.Cluster/MemberUpdate", input: &ETCDSERVERPB_MEMBER_UPDATE_REQUEST, output: &ETCDSERVERPB_MEMBER_UPDATE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/cluster/member/list", grpc: "/etcdserverpb.Cluster/MemberList", input: &ETCDSERVERPB_MEMBER_LIST_REQUEST, output: &ETCDSERVERPB_MEMBER_LIST_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/cluster/member/promote", grpc: "/etcdserverpb.Cluster/MemberPromote", input: &ETCDSERVERPB_MEMBER_PROMOTE_REQUEST, output: &ETCDSERVERPB_MEMBER_PROMOTE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/alarm", grpc: "/etcdserverpb.Maintenance/Alarm", input: &ETCDSERVERPB_ALARM_REQUEST, output: &ETCDSERVERPB_ALARM_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/status", grpc: "/etcdserverpb.Maintenance/Status", input: &ETCDSERVERPB_STATUS_REQUEST, output: &ETCDSERVERPB_STATUS_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/defragment", grpc: "/etcdserverpb.Maintenance/Defragment", input: &ETCDSERVERPB_DEFRAGMENT_REQUEST, output: &ETCDSERVERPB_DEFRAGMENT_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/hash", grpc: "/etcdserverpb.Maintenance/Hash", input: &ETCDSERVERPB_HASH_REQUEST, output: &ETCDSERVERPB_HASH_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/hashkv", grpc: "/etcdserverpb.Maintenance/HashKV", input: &ETCDSERVERPB_HASH_KVREQUEST, output: &ETCDSERVERPB_HASH_KVRESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/snapshot", grpc: "/etcdserverpb.Maintenance/Snapshot", input: &ETCDSERVERPB_SNAPSHOT_REQUEST, output: &ETCDSERVERPB_SNAPSHOT_RESPONSE, client_streams: false, server_streams: true },
    Route { http: "/v3/maintenance/transfer-leadership", grpc: "/etcdserverpb.Maintenance/MoveLeader", input: &ETCDSERVERPB_MOVE_LEADER_REQUEST, output: &ETCDSERVERPB_MOVE_LEADER_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/maintenance/downgrade", grpc: "/etcdserverpb.Maintenance/Downgrade", input: &ETCDSERVERPB_DOWNGRADE_REQUEST, output: &ETCDSERVERPB_DOWNGRADE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/enable", grpc: "/etcdserverpb.Auth/AuthEnable", input: &ETCDSERVERPB_AUTH_ENABLE_REQUEST, output: &ETCDSERVERPB_AUTH_ENABLE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/disable", grpc: "/etcdserverpb.Auth/AuthDisable", input: &ETCDSERVERPB_AUTH_DISABLE_REQUEST, output: &ETCDSERVERPB_AUTH_DISABLE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/status", grpc: "/etcdserverpb.Auth/AuthStatus", input: &ETCDSERVERPB_AUTH_STATUS_REQUEST, output: &ETCDSERVERPB_AUTH_STATUS_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/authenticate", grpc: "/etcdserverpb.Auth/Authenticate", input: &ETCDSERVERPB_AUTHENTICATE_REQUEST, output: &ETCDSERVERPB_AUTHENTICATE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/add", grpc: "/etcdserverpb.Auth/UserAdd", input: &ETCDSERVERPB_AUTH_USER_ADD_REQUEST, output: &ETCDSERVERPB_AUTH_USER_ADD_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/get", grpc: "/etcdserverpb.Auth/UserGet", input: &ETCDSERVERPB_AUTH_USER_GET_REQUEST, output: &ETCDSERVERPB_AUTH_USER_GET_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/list", grpc: "/etcdserverpb.Auth/UserList", input: &ETCDSERVERPB_AUTH_USER_LIST_REQUEST, output: &ETCDSERVERPB_AUTH_USER_LIST_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/delete", grpc: "/etcdserverpb.Auth/UserDelete", input: &ETCDSERVERPB_AUTH_USER_DELETE_REQUEST, output: &ETCDSERVERPB_AUTH_USER_DELETE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/changepw", grpc: "/etcdserverpb.Auth/UserChangePassword", input: &ETCDSERVERPB_AUTH_USER_CHANGE_PASSWORD_REQUEST, output: &ETCDSERVERPB_AUTH_USER_CHANGE_PASSWORD_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/grant", grpc: "/etcdserverpb.Auth/UserGrantRole", input: &ETCDSERVERPB_AUTH_USER_GRANT_ROLE_REQUEST, output: &ETCDSERVERPB_AUTH_USER_GRANT_ROLE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/user/revoke", grpc: "/etcdserverpb.Auth/UserRevokeRole", input: &ETCDSERVERPB_AUTH_USER_REVOKE_ROLE_REQUEST, output: &ETCDSERVERPB_AUTH_USER_REVOKE_ROLE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/add", grpc: "/etcdserverpb.Auth/RoleAdd", input: &ETCDSERVERPB_AUTH_ROLE_ADD_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_ADD_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/get", grpc: "/etcdserverpb.Auth/RoleGet", input: &ETCDSERVERPB_AUTH_ROLE_GET_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_GET_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/list", grpc: "/etcdserverpb.Auth/RoleList", input: &ETCDSERVERPB_AUTH_ROLE_LIST_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_LIST_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/delete", grpc: "/etcdserverpb.Auth/RoleDelete", input: &ETCDSERVERPB_AUTH_ROLE_DELETE_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_DELETE_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/grant", grpc: "/etcdserverpb.Auth/RoleGrantPermission", input: &ETCDSERVERPB_AUTH_ROLE_GRANT_PERMISSION_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_GRANT_PERMISSION_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/auth/role/revoke", grpc: "/etcdserverpb.Auth/RoleRevokePermission", input: &ETCDSERVERPB_AUTH_ROLE_REVOKE_PERMISSION_REQUEST, output: &ETCDSERVERPB_AUTH_ROLE_REVOKE_PERMISSION_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/election/campaign", grpc: "/v3electionpb.Election/Campaign", input: &V3ELECTIONPB_CAMPAIGN_REQUEST, output: &V3ELECTIONPB_CAMPAIGN_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/election/proclaim", grpc: "/v3electionpb.Election/Proclaim", input: &V3ELECTIONPB_PROCLAIM_REQUEST, output: &V3ELECTIONPB_PROCLAIM_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/election/leader", grpc: "/v3electionpb.Election/Leader", input: &V3ELECTIONPB_LEADER_REQUEST, output: &V3ELECTIONPB_LEADER_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/election/observe", grpc: "/v3electionpb.Election/Observe", input: &V3ELECTIONPB_LEADER_REQUEST, output: &V3ELECTIONPB_LEADER_RESPONSE, client_streams: false, server_streams: true },
    Route { http: "/v3/election/resign", grpc: "/v3electionpb.Election/Resign", input: &V3ELECTIONPB_RESIGN_REQUEST, output: &V3ELECTIONPB_RESIGN_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/lock/lock", grpc: "/v3lockpb.Lock/Lock", input: &V3LOCKPB_LOCK_REQUEST, output: &V3LOCKPB_LOCK_RESPONSE, client_streams: false, server_streams: false },
    Route { http: "/v3/lock/unlock", grpc: "/v3lockpb.Lock/Unlock", input: &V3LOCKPB_UNLOCK_REQUEST, output: &V3LOCKPB_UNLOCK_RESPONSE, client_streams: false, server_streams: false },
];

static AUTHPB_PERMISSION: Message = Message {
    name: "authpb.Permission",
    fields: &[
        Field { number: 1, name: "permType", json_name: "permType", kind: Kind::Enum(&AUTHPB_PERMISSION_TYPE), repeated: false, oneof: None },
        Field { number: 2, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static AUTHPB_PERMISSION_TYPE: Enum = Enum { name: "authpb.Permission.Type", values: &[("READ", 0), ("WRITE", 1), ("READWRITE", 2)] };

static AUTHPB_USER_ADD_OPTIONS: Message = Message {
    name: "authpb.UserAddOptions",
    fields: &[
        Field { number: 1, name: "no_password", json_name: "noPassword", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_ALARM_MEMBER: Message = Message {
    name: "etcdserverpb.AlarmMember",
    fields: &[
        Field { number: 1, name: "memberID", json_name: "memberID", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 2, name: "alarm", json_name: "alarm", kind: Kind::Enum(&ETCDSERVERPB_ALARM_TYPE), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_ALARM_REQUEST: Message = Message {
    name: "etcdserverpb.AlarmRequest",
    fields: &[
        Field { number: 1, name: "action", json_name: "action", kind: Kind::Enum(&ETCDSERVERPB_ALARM_REQUEST_ALARM_ACTION), repeated: false, oneof: None },
        Field { number: 2, name: "memberID", json_name: "memberID", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 3, name: "alarm", json_name: "alarm", kind: Kind::Enum(&ETCDSERVERPB_ALARM_TYPE), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_ALARM_REQUEST_ALARM_ACTION: Enum = Enum { name: "etcdserverpb.AlarmRequest.AlarmAction", values: &[("GET", 0), ("ACTIVATE", 1), ("DEACTIVATE", 2)] };

static ETCDSERVERPB_ALARM_RESPONSE: Message = Message {
    name: "etcdserverpb.AlarmResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "alarms", json_name: "alarms", kind: Kind::Message(&ETCDSERVERPB_ALARM_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_ALARM_TYPE: Enum = Enum { name: "etcdserverpb.AlarmType", values: &[("NONE", 0), ("NOSPACE", 1), ("CORRUPT", 2)] };

static ETCDSERVERPB_AUTH_DISABLE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthDisableRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_AUTH_DISABLE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthDisableResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ENABLE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthEnableRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_AUTH_ENABLE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthEnableResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_ADD_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleAddRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_ADD_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleAddResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_DELETE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleDeleteRequest",
    fields: &[
        Field { number: 1, name: "role", json_name: "role", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_DELETE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleDeleteResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_GET_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleGetRequest",
    fields: &[
        Field { number: 1, name: "role", json_name: "role", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_GET_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleGetResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "perm", json_name: "perm", kind: Kind::Message(&AUTHPB_PERMISSION), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_GRANT_PERMISSION_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleGrantPermissionRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "perm", json_name: "perm", kind: Kind::Message(&AUTHPB_PERMISSION), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_GRANT_PERMISSION_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleGrantPermissionResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_LIST_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleListRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_AUTH_ROLE_LIST_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleListResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "roles", json_name: "roles", kind: Kind::String, repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_REVOKE_PERMISSION_REQUEST: Message = Message {
    name: "etcdserverpb.AuthRoleRevokePermissionRequest",
    fields: &[
        Field { number: 1, name: "role", json_name: "role", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_ROLE_REVOKE_PERMISSION_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthRoleRevokePermissionResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_STATUS_REQUEST: Message = Message {
    name: "etcdserverpb.AuthStatusRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_AUTH_STATUS_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthStatusResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "enabled", json_name: "enabled", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 3, name: "authRevision", json_name: "authRevision", kind: Kind::Uint64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_ADD_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserAddRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "password", json_name: "password", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 3, name: "options", json_name: "options", kind: Kind::Message(&AUTHPB_USER_ADD_OPTIONS), repeated: false, oneof: None },
        Field { number: 4, name: "hashedPassword", json_name: "hashedPassword", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_ADD_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserAddResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_CHANGE_PASSWORD_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserChangePasswordRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "password", json_name: "password", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 3, name: "hashedPassword", json_name: "hashedPassword", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_CHANGE_PASSWORD_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserChangePasswordResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_DELETE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserDeleteRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_DELETE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserDeleteResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_GET_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserGetRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_GET_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserGetResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "roles", json_name: "roles", kind: Kind::String, repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_GRANT_ROLE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserGrantRoleRequest",
    fields: &[
        Field { number: 1, name: "user", json_name: "user", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "role", json_name: "role", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_GRANT_ROLE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserGrantRoleResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_LIST_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserListRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_AUTH_USER_LIST_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserListResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "users", json_name: "users", kind: Kind::String, repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_REVOKE_ROLE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthUserRevokeRoleRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "role", json_name: "role", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTH_USER_REVOKE_ROLE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthUserRevokeRoleResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTHENTICATE_REQUEST: Message = Message {
    name: "etcdserverpb.AuthenticateRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 2, name: "password", json_name: "password", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_AUTHENTICATE_RESPONSE: Message = Message {
    name: "etcdserverpb.AuthenticateResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "token", json_name: "token", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_COMPACTION_REQUEST: Message = Message {
    name: "etcdserverpb.CompactionRequest",
    fields: &[
        Field { number: 1, name: "revision", json_name: "revision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 2, name: "physical", json_name: "physical", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_COMPACTION_RESPONSE: Message = Message {
    name: "etcdserverpb.CompactionResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_COMPARE: Message = Message {
    name: "etcdserverpb.Compare",
    fields: &[
        Field { number: 1, name: "result", json_name: "result", kind: Kind::Enum(&ETCDSERVERPB_COMPARE_COMPARE_RESULT), repeated: false, oneof: None },
        Field { number: 2, name: "target", json_name: "target", kind: Kind::Enum(&ETCDSERVERPB_COMPARE_COMPARE_TARGET), repeated: false, oneof: None },
        Field { number: 3, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 4, name: "version", json_name: "version", kind: Kind::Int64, repeated: false, oneof: Some("etcdserverpb.Compare.target_union") },
        Field { number: 5, name: "create_revision", json_name: "createRevision", kind: Kind::Int64, repeated: false, oneof: Some("etcdserverpb.Compare.target_union") },
        Field { number: 6, name: "mod_revision", json_name: "modRevision", kind: Kind::Int64, repeated: false, oneof: Some("etcdserverpb.Compare.target_union") },
        Field { number: 7, name: "value", json_name: "value", kind: Kind::Bytes, repeated: false, oneof: Some("etcdserverpb.Compare.target_union") },
        Field { number: 8, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: Some("etcdserverpb.Compare.target_union") },
        Field { number: 64, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_COMPARE_COMPARE_RESULT: Enum = Enum { name: "etcdserverpb.Compare.CompareResult", values: &[("EQUAL", 0), ("GREATER", 1), ("LESS", 2), ("NOT_EQUAL", 3)] };

static ETCDSERVERPB_COMPARE_COMPARE_TARGET: Enum = Enum { name: "etcdserverpb.Compare.CompareTarget", values: &[("VERSION", 0), ("CREATE", 1), ("MOD", 2), ("VALUE", 3), ("LEASE", 4)] };

static ETCDSERVERPB_DEFRAGMENT_REQUEST: Message = Message {
    name: "etcdserverpb.DefragmentRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_DEFRAGMENT_RESPONSE: Message = Message {
    name: "etcdserverpb.DefragmentResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_DELETE_RANGE_REQUEST: Message = Message {
    name: "etcdserverpb.DeleteRangeRequest",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "prev_kv", json_name: "prevKv", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_DELETE_RANGE_RESPONSE: Message = Message {
    name: "etcdserverpb.DeleteRangeResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "deleted", json_name: "deleted", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "prev_kvs", json_name: "prevKvs", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_DOWNGRADE_INFO: Message = Message {
    name: "etcdserverpb.DowngradeInfo",
    fields: &[
        Field { number: 1, name: "enabled", json_name: "enabled", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 2, name: "targetVersion", json_name: "targetVersion", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_DOWNGRADE_REQUEST: Message = Message {
    name: "etcdserverpb.DowngradeRequest",
    fields: &[
        Field { number: 1, name: "action", json_name: "action", kind: Kind::Enum(&ETCDSERVERPB_DOWNGRADE_REQUEST_DOWNGRADE_ACTION), repeated: false, oneof: None },
        Field { number: 2, name: "version", json_name: "version", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_DOWNGRADE_REQUEST_DOWNGRADE_ACTION: Enum = Enum { name: "etcdserverpb.DowngradeRequest.DowngradeAction", values: &[("VALIDATE", 0), ("ENABLE", 1), ("CANCEL", 2)] };

static ETCDSERVERPB_DOWNGRADE_RESPONSE: Message = Message {
    name: "etcdserverpb.DowngradeResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "version", json_name: "version", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_HASH_KVREQUEST: Message = Message {
    name: "etcdserverpb.HashKVRequest",
    fields: &[
        Field { number: 1, name: "revision", json_name: "revision", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_HASH_KVRESPONSE: Message = Message {
    name: "etcdserverpb.HashKVResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "hash", json_name: "hash", kind: Kind::Uint32, repeated: false, oneof: None },
        Field { number: 3, name: "compact_revision", json_name: "compactRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "hash_revision", json_name: "hashRevision", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_HASH_REQUEST: Message = Message {
    name: "etcdserverpb.HashRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_HASH_RESPONSE: Message = Message {
    name: "etcdserverpb.HashResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "hash", json_name: "hash", kind: Kind::Uint32, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_GRANT_REQUEST: Message = Message {
    name: "etcdserverpb.LeaseGrantRequest",
    fields: &[
        Field { number: 1, name: "TTL", json_name: "TTL", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 2, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_GRANT_RESPONSE: Message = Message {
    name: "etcdserverpb.LeaseGrantResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "TTL", json_name: "TTL", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "error", json_name: "error", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_KEEP_ALIVE_REQUEST: Message = Message {
    name: "etcdserverpb.LeaseKeepAliveRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_KEEP_ALIVE_RESPONSE: Message = Message {
    name: "etcdserverpb.LeaseKeepAliveResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "TTL", json_name: "TTL", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_LEASES_REQUEST: Message = Message {
    name: "etcdserverpb.LeaseLeasesRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_LEASE_LEASES_RESPONSE: Message = Message {
    name: "etcdserverpb.LeaseLeasesResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "leases", json_name: "leases", kind: Kind::Message(&ETCDSERVERPB_LEASE_STATUS), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_REVOKE_REQUEST: Message = Message {
    name: "etcdserverpb.LeaseRevokeRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_REVOKE_RESPONSE: Message = Message {
    name: "etcdserverpb.LeaseRevokeResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_STATUS: Message = Message {
    name: "etcdserverpb.LeaseStatus",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_TIME_TO_LIVE_REQUEST: Message = Message {
    name: "etcdserverpb.LeaseTimeToLiveRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 2, name: "keys", json_name: "keys", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_LEASE_TIME_TO_LIVE_RESPONSE: Message = Message {
    name: "etcdserverpb.LeaseTimeToLiveResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "ID", json_name: "ID", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "TTL", json_name: "TTL", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "grantedTTL", json_name: "grantedTTL", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 5, name: "keys", json_name: "keys", kind: Kind::Bytes, repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER: Message = Message {
    name: "etcdserverpb.Member",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 2, name: "name", json_name: "name", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 3, name: "peerURLs", json_name: "peerURLs", kind: Kind::String, repeated: true, oneof: None },
        Field { number: 4, name: "clientURLs", json_name: "clientURLs", kind: Kind::String, repeated: true, oneof: None },
        Field { number: 5, name: "isLearner", json_name: "isLearner", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_ADD_REQUEST: Message = Message {
    name: "etcdserverpb.MemberAddRequest",
    fields: &[
        Field { number: 1, name: "peerURLs", json_name: "peerURLs", kind: Kind::String, repeated: true, oneof: None },
        Field { number: 2, name: "isLearner", json_name: "isLearner", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_ADD_RESPONSE: Message = Message {
    name: "etcdserverpb.MemberAddResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "member", json_name: "member", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: false, oneof: None },
        Field { number: 3, name: "members", json_name: "members", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_LIST_REQUEST: Message = Message {
    name: "etcdserverpb.MemberListRequest",
    fields: &[
        Field { number: 1, name: "linearizable", json_name: "linearizable", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_LIST_RESPONSE: Message = Message {
    name: "etcdserverpb.MemberListResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "members", json_name: "members", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_PROMOTE_REQUEST: Message = Message {
    name: "etcdserverpb.MemberPromoteRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Uint64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_PROMOTE_RESPONSE: Message = Message {
    name: "etcdserverpb.MemberPromoteResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "members", json_name: "members", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_REMOVE_REQUEST: Message = Message {
    name: "etcdserverpb.MemberRemoveRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Uint64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_REMOVE_RESPONSE: Message = Message {
    name: "etcdserverpb.MemberRemoveResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "members", json_name: "members", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_UPDATE_REQUEST: Message = Message {
    name: "etcdserverpb.MemberUpdateRequest",
    fields: &[
        Field { number: 1, name: "ID", json_name: "ID", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 2, name: "peerURLs", json_name: "peerURLs", kind: Kind::String, repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MEMBER_UPDATE_RESPONSE: Message = Message {
    name: "etcdserverpb.MemberUpdateResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "members", json_name: "members", kind: Kind::Message(&ETCDSERVERPB_MEMBER), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_MOVE_LEADER_REQUEST: Message = Message {
    name: "etcdserverpb.MoveLeaderRequest",
    fields: &[
        Field { number: 1, name: "targetID", json_name: "targetID", kind: Kind::Uint64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_MOVE_LEADER_RESPONSE: Message = Message {
    name: "etcdserverpb.MoveLeaderResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_PUT_REQUEST: Message = Message {
    name: "etcdserverpb.PutRequest",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "value", json_name: "value", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "prev_kv", json_name: "prevKv", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 5, name: "ignore_value", json_name: "ignoreValue", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 6, name: "ignore_lease", json_name: "ignoreLease", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_PUT_RESPONSE: Message = Message {
    name: "etcdserverpb.PutResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "prev_kv", json_name: "prevKv", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_RANGE_REQUEST: Message = Message {
    name: "etcdserverpb.RangeRequest",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "limit", json_name: "limit", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "revision", json_name: "revision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 5, name: "sort_order", json_name: "sortOrder", kind: Kind::Enum(&ETCDSERVERPB_RANGE_REQUEST_SORT_ORDER), repeated: false, oneof: None },
        Field { number: 6, name: "sort_target", json_name: "sortTarget", kind: Kind::Enum(&ETCDSERVERPB_RANGE_REQUEST_SORT_TARGET), repeated: false, oneof: None },
        Field { number: 7, name: "serializable", json_name: "serializable", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 8, name: "keys_only", json_name: "keysOnly", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 9, name: "count_only", json_name: "countOnly", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 10, name: "min_mod_revision", json_name: "minModRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 11, name: "max_mod_revision", json_name: "maxModRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 12, name: "min_create_revision", json_name: "minCreateRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 13, name: "max_create_revision", json_name: "maxCreateRevision", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_RANGE_REQUEST_SORT_ORDER: Enum = Enum { name: "etcdserverpb.RangeRequest.SortOrder", values: &[("NONE", 0), ("ASCEND", 1), ("DESCEND", 2)] };

static ETCDSERVERPB_RANGE_REQUEST_SORT_TARGET: Enum = Enum { name: "etcdserverpb.RangeRequest.SortTarget", values: &[("KEY", 0), ("VERSION", 1), ("CREATE", 2), ("MOD", 3), ("VALUE", 4)] };

static ETCDSERVERPB_RANGE_RESPONSE: Message = Message {
    name: "etcdserverpb.RangeResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "kvs", json_name: "kvs", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: true, oneof: None },
        Field { number: 3, name: "more", json_name: "more", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 4, name: "count", json_name: "count", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_REQUEST_OP: Message = Message {
    name: "etcdserverpb.RequestOp",
    fields: &[
        Field { number: 1, name: "request_range", json_name: "requestRange", kind: Kind::Message(&ETCDSERVERPB_RANGE_REQUEST), repeated: false, oneof: Some("etcdserverpb.RequestOp.request") },
        Field { number: 2, name: "request_put", json_name: "requestPut", kind: Kind::Message(&ETCDSERVERPB_PUT_REQUEST), repeated: false, oneof: Some("etcdserverpb.RequestOp.request") },
        Field { number: 3, name: "request_delete_range", json_name: "requestDeleteRange", kind: Kind::Message(&ETCDSERVERPB_DELETE_RANGE_REQUEST), repeated: false, oneof: Some("etcdserverpb.RequestOp.request") },
        Field { number: 4, name: "request_txn", json_name: "requestTxn", kind: Kind::Message(&ETCDSERVERPB_TXN_REQUEST), repeated: false, oneof: Some("etcdserverpb.RequestOp.request") },
    ],
};

static ETCDSERVERPB_RESPONSE_HEADER: Message = Message {
    name: "etcdserverpb.ResponseHeader",
    fields: &[
        Field { number: 1, name: "cluster_id", json_name: "clusterId", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 2, name: "member_id", json_name: "memberId", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 3, name: "revision", json_name: "revision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "raft_term", json_name: "raftTerm", kind: Kind::Uint64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_RESPONSE_OP: Message = Message {
    name: "etcdserverpb.ResponseOp",
    fields: &[
        Field { number: 1, name: "response_range", json_name: "responseRange", kind: Kind::Message(&ETCDSERVERPB_RANGE_RESPONSE), repeated: false, oneof: Some("etcdserverpb.ResponseOp.response") },
        Field { number: 2, name: "response_put", json_name: "responsePut", kind: Kind::Message(&ETCDSERVERPB_PUT_RESPONSE), repeated: false, oneof: Some("etcdserverpb.ResponseOp.response") },
        Field { number: 3, name: "response_delete_range", json_name: "responseDeleteRange", kind: Kind::Message(&ETCDSERVERPB_DELETE_RANGE_RESPONSE), repeated: false, oneof: Some("etcdserverpb.ResponseOp.response") },
        Field { number: 4, name: "response_txn", json_name: "responseTxn", kind: Kind::Message(&ETCDSERVERPB_TXN_RESPONSE), repeated: false, oneof: Some("etcdserverpb.ResponseOp.response") },
    ],
};

static ETCDSERVERPB_SNAPSHOT_REQUEST: Message = Message {
    name: "etcdserverpb.SnapshotRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_SNAPSHOT_RESPONSE: Message = Message {
    name: "etcdserverpb.SnapshotResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "remaining_bytes", json_name: "remainingBytes", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 3, name: "blob", json_name: "blob", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 4, name: "version", json_name: "version", kind: Kind::String, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_STATUS_REQUEST: Message = Message {
    name: "etcdserverpb.StatusRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_STATUS_RESPONSE: Message = Message {
    name: "etcdserverpb.StatusResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "version", json_name: "version", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 3, name: "dbSize", json_name: "dbSize", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "leader", json_name: "leader", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 5, name: "raftIndex", json_name: "raftIndex", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 6, name: "raftTerm", json_name: "raftTerm", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 7, name: "raftAppliedIndex", json_name: "raftAppliedIndex", kind: Kind::Uint64, repeated: false, oneof: None },
        Field { number: 8, name: "errors", json_name: "errors", kind: Kind::String, repeated: true, oneof: None },
        Field { number: 9, name: "dbSizeInUse", json_name: "dbSizeInUse", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 10, name: "isLearner", json_name: "isLearner", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 11, name: "storageVersion", json_name: "storageVersion", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 12, name: "dbSizeQuota", json_name: "dbSizeQuota", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 13, name: "downgradeInfo", json_name: "downgradeInfo", kind: Kind::Message(&ETCDSERVERPB_DOWNGRADE_INFO), repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_TXN_REQUEST: Message = Message {
    name: "etcdserverpb.TxnRequest",
    fields: &[
        Field { number: 1, name: "compare", json_name: "compare", kind: Kind::Message(&ETCDSERVERPB_COMPARE), repeated: true, oneof: None },
        Field { number: 2, name: "success", json_name: "success", kind: Kind::Message(&ETCDSERVERPB_REQUEST_OP), repeated: true, oneof: None },
        Field { number: 3, name: "failure", json_name: "failure", kind: Kind::Message(&ETCDSERVERPB_REQUEST_OP), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_TXN_RESPONSE: Message = Message {
    name: "etcdserverpb.TxnResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "succeeded", json_name: "succeeded", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 3, name: "responses", json_name: "responses", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_OP), repeated: true, oneof: None },
    ],
};

static ETCDSERVERPB_WATCH_CANCEL_REQUEST: Message = Message {
    name: "etcdserverpb.WatchCancelRequest",
    fields: &[
        Field { number: 1, name: "watch_id", json_name: "watchId", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_WATCH_CREATE_REQUEST: Message = Message {
    name: "etcdserverpb.WatchCreateRequest",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "range_end", json_name: "rangeEnd", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "start_revision", json_name: "startRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "progress_notify", json_name: "progressNotify", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 5, name: "filters", json_name: "filters", kind: Kind::Enum(&ETCDSERVERPB_WATCH_CREATE_REQUEST_FILTER_TYPE), repeated: true, oneof: None },
        Field { number: 6, name: "prev_kv", json_name: "prevKv", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 7, name: "watch_id", json_name: "watchId", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 8, name: "fragment", json_name: "fragment", kind: Kind::Bool, repeated: false, oneof: None },
    ],
};

static ETCDSERVERPB_WATCH_CREATE_REQUEST_FILTER_TYPE: Enum = Enum { name: "etcdserverpb.WatchCreateRequest.FilterType", values: &[("NOPUT", 0), ("NODELETE", 1)] };

static ETCDSERVERPB_WATCH_PROGRESS_REQUEST: Message = Message {
    name: "etcdserverpb.WatchProgressRequest",
    fields: &[
    ],
};

static ETCDSERVERPB_WATCH_REQUEST: Message = Message {
    name: "etcdserverpb.WatchRequest",
    fields: &[
        Field { number: 1, name: "create_request", json_name: "createRequest", kind: Kind::Message(&ETCDSERVERPB_WATCH_CREATE_REQUEST), repeated: false, oneof: Some("etcdserverpb.WatchRequest.request_union") },
        Field { number: 2, name: "cancel_request", json_name: "cancelRequest", kind: Kind::Message(&ETCDSERVERPB_WATCH_CANCEL_REQUEST), repeated: false, oneof: Some("etcdserverpb.WatchRequest.request_union") },
        Field { number: 3, name: "progress_request", json_name: "progressRequest", kind: Kind::Message(&ETCDSERVERPB_WATCH_PROGRESS_REQUEST), repeated: false, oneof: Some("etcdserverpb.WatchRequest.request_union") },
    ],
};

static ETCDSERVERPB_WATCH_RESPONSE: Message = Message {
    name: "etcdserverpb.WatchResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "watch_id", json_name: "watchId", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "created", json_name: "created", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 4, name: "canceled", json_name: "canceled", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 5, name: "compact_revision", json_name: "compactRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 6, name: "cancel_reason", json_name: "cancelReason", kind: Kind::String, repeated: false, oneof: None },
        Field { number: 7, name: "fragment", json_name: "fragment", kind: Kind::Bool, repeated: false, oneof: None },
        Field { number: 11, name: "events", json_name: "events", kind: Kind::Message(&MVCCPB_EVENT), repeated: true, oneof: None },
    ],
};

static MVCCPB_EVENT: Message = Message {
    name: "mvccpb.Event",
    fields: &[
        Field { number: 1, name: "type", json_name: "type", kind: Kind::Enum(&MVCCPB_EVENT_EVENT_TYPE), repeated: false, oneof: None },
        Field { number: 2, name: "kv", json_name: "kv", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: false, oneof: None },
        Field { number: 3, name: "prev_kv", json_name: "prevKv", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: false, oneof: None },
    ],
};

static MVCCPB_EVENT_EVENT_TYPE: Enum = Enum { name: "mvccpb.Event.EventType", values: &[("PUT", 0), ("DELETE", 1)] };

static MVCCPB_KEY_VALUE: Message = Message {
    name: "mvccpb.KeyValue",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "create_revision", json_name: "createRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "mod_revision", json_name: "modRevision", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "version", json_name: "version", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 5, name: "value", json_name: "value", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 6, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_CAMPAIGN_REQUEST: Message = Message {
    name: "v3electionpb.CampaignRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 3, name: "value", json_name: "value", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_CAMPAIGN_RESPONSE: Message = Message {
    name: "v3electionpb.CampaignResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "leader", json_name: "leader", kind: Kind::Message(&V3ELECTIONPB_LEADER_KEY), repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_LEADER_KEY: Message = Message {
    name: "v3electionpb.LeaderKey",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 3, name: "rev", json_name: "rev", kind: Kind::Int64, repeated: false, oneof: None },
        Field { number: 4, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_LEADER_REQUEST: Message = Message {
    name: "v3electionpb.LeaderRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_LEADER_RESPONSE: Message = Message {
    name: "v3electionpb.LeaderResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "kv", json_name: "kv", kind: Kind::Message(&MVCCPB_KEY_VALUE), repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_PROCLAIM_REQUEST: Message = Message {
    name: "v3electionpb.ProclaimRequest",
    fields: &[
        Field { number: 1, name: "leader", json_name: "leader", kind: Kind::Message(&V3ELECTIONPB_LEADER_KEY), repeated: false, oneof: None },
        Field { number: 2, name: "value", json_name: "value", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_PROCLAIM_RESPONSE: Message = Message {
    name: "v3electionpb.ProclaimResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_RESIGN_REQUEST: Message = Message {
    name: "v3electionpb.ResignRequest",
    fields: &[
        Field { number: 1, name: "leader", json_name: "leader", kind: Kind::Message(&V3ELECTIONPB_LEADER_KEY), repeated: false, oneof: None },
    ],
};

static V3ELECTIONPB_RESIGN_RESPONSE: Message = Message {
    name: "v3electionpb.ResignResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};

static V3LOCKPB_LOCK_REQUEST: Message = Message {
    name: "v3lockpb.LockRequest",
    fields: &[
        Field { number: 1, name: "name", json_name: "name", kind: Kind::Bytes, repeated: false, oneof: None },
        Field { number: 2, name: "lease", json_name: "lease", kind: Kind::Int64, repeated: false, oneof: None },
    ],
};

static V3LOCKPB_LOCK_RESPONSE: Message = Message {
    name: "v3lockpb.LockResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
        Field { number: 2, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static V3LOCKPB_UNLOCK_REQUEST: Message = Message {
    name: "v3lockpb.UnlockRequest",
    fields: &[
        Field { number: 1, name: "key", json_name: "key", kind: Kind::Bytes, repeated: false, oneof: None },
    ],
};

static V3LOCKPB_UNLOCK_RESPONSE: Message = Message {
    name: "v3lockpb.UnlockResponse",
    fields: &[
        Field { number: 1, name: "header", json_name: "header", kind: Kind::Message(&ETCDSERVERPB_RESPONSE_HEADER), repeated: false, oneof: None },
    ],
};
