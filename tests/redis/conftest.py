"""
A Redis for the tests of this folder.
"""

from tests.redis.fixtures import redis, redis_cluster, redis_on_cluster, redis_server

__all__ = ["redis", "redis_cluster", "redis_on_cluster", "redis_server"]
