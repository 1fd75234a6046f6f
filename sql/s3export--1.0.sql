/* s3export--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION s3export" to load this file. \quit

CREATE SCHEMA s3export;

-- ---------------------------------------------------------------- connectors

-- ------------------------------------------------------------------- exports

